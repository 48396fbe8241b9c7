-- The permission table never let analysts see dead letters; the description said so.
UPDATE roles SET description = 'reads pipelines and metrics' WHERE name = 'analyst';
