-- How often the process that worked a job was gone before it was over: after a few times it is given to no other one.

ALTER TABLE reconciliation_jobs ADD COLUMN losses integer NOT NULL DEFAULT 0;
