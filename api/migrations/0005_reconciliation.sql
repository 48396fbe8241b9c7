-- Reconciliation: what people ask for (jobs, schedules, repairs), and what the reconciliation service finds.
-- The API inserts jobs and sets `wanted`; schedules are the API's; the service takes jobs, fires schedules, and writes all
-- else. Words in CHECKs are those of cdc_shared.models.reconciliation. Pipelines are named, not referenced: what was found
-- outlives a pipeline.

CREATE TABLE reconciliation_schedules (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    pipeline text COLLATE "C" NOT NULL,
    -- ScheduleConfig.
    config jsonb NOT NULL,
    -- Counts changes of the config; with the id it is the ETag.
    version bigint NOT NULL DEFAULT 1,
    -- The service's: when it fired last and will fire next, in the schedule's own sense of time.
    last_fired_at timestamptz,
    next_fire_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL
);
CREATE INDEX reconciliation_schedules_by_pipeline ON reconciliation_schedules (pipeline, id);

CREATE TABLE reconciliation_jobs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- Jobs are taken in this order.
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    pipeline text COLLATE "C" NOT NULL,
    -- NULL is every collection that has a table when the job begins.
    collections text[],
    mode text NOT NULL CHECK (mode IN ('full', 'incremental', 'counts', 'keys')),
    -- JobOptions and Notifications.
    options jsonb NOT NULL DEFAULT '{}',
    notifications jsonb NOT NULL DEFAULT '{}',
    overlap text NOT NULL DEFAULT 'queue' CHECK (overlap IN ('skip', 'queue', 'warn')),
    -- What made it: a person (none of these), a schedule, or a repair that is to be verified, then with its keys alone.
    schedule_id uuid REFERENCES reconciliation_schedules ON DELETE SET NULL,
    repair_id uuid,
    state text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'paused', 'completed', 'failed', 'cancelled', 'skipped')),
    -- What people want of it; the service follows.
    wanted text NOT NULL DEFAULT 'run' CHECK (wanted IN ('run', 'pause', 'cancel')),
    outcome text CHECK (outcome IN ('equal', 'differences', 'undecided')),
    -- Which process works it, and when it was last heard of: another takes the job over when it is silent for long.
    worker text,
    heartbeat_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    warning text,
    error text,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    CHECK ((finished_at IS NULL) = (state IN ('queued', 'running', 'paused'))),
    CHECK (outcome IS NULL OR state = 'completed')
);
CREATE INDEX reconciliation_jobs_by_pipeline ON reconciliation_jobs (pipeline, number);
CREATE INDEX reconciliation_jobs_unfinished ON reconciliation_jobs (number) WHERE finished_at IS NULL;

-- One collection of a job. The service holds the advisory lock of (pipeline, database, collection) while it runs.
CREATE TABLE reconciliation_runs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    job_id uuid NOT NULL REFERENCES reconciliation_jobs ON DELETE CASCADE,
    pipeline text COLLATE "C" NOT NULL,
    database text NOT NULL,
    collection text NOT NULL,
    state text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'paused', 'completed', 'failed', 'cancelled', 'skipped')),
    outcome text CHECK (outcome IN ('equal', 'differences', 'undecided')),
    -- RunProgress: phase, done, total, per second, percent, seconds left, throttled and why.
    progress jsonb NOT NULL DEFAULT '{}',
    -- RunSummary: counts by kind, documents, rows, sampled, table version, watermark, generations, times of phases.
    summary jsonb,
    error text,
    started_at timestamptz,
    finished_at timestamptz,
    UNIQUE (job_id, database, collection)
);
CREATE INDEX reconciliation_runs_by_collection ON reconciliation_runs (pipeline, database, collection, finished_at);

CREATE TABLE reconciliation_differences (
    run_id uuid NOT NULL REFERENCES reconciliation_runs ON DELETE CASCADE,
    number bigint NOT NULL,
    kind text NOT NULL,
    -- As the table shows it: of a masked _id, its HMAC.
    key text NOT NULL,
    -- The _id's own key text, for repair; sealed with the platform's data key. NULL where it cannot be known.
    source_key bytea,
    -- Which fields differ and how, documents side by side (masked as the rules say), and the explanation in words.
    details jsonb NOT NULL,
    PRIMARY KEY (run_id, number)
);
CREATE INDEX reconciliation_differences_by_kind ON reconciliation_differences (run_id, kind, number);

CREATE TABLE reconciliation_reports (
    run_id uuid PRIMARY KEY REFERENCES reconciliation_runs ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- The whole report as JSON, differences up to a cap; where JSON, CSV and HTML lie in the lake, NULL if that failed.
    report jsonb NOT NULL,
    lake_path text
);

-- The newest verdict on each collection: "verified through T".
CREATE TABLE reconciliation_verifications (
    pipeline text COLLATE "C" NOT NULL,
    database text NOT NULL,
    collection text NOT NULL,
    -- Every row was right as of this time of the source. NULL until a run was `equal`.
    verified_through timestamptz,
    -- Where the change topic stood then ({topic id, partition → offset}), for mode incremental, and its rotating share.
    positions jsonb,
    rotation integer NOT NULL DEFAULT 0,
    last_run_id uuid REFERENCES reconciliation_runs ON DELETE SET NULL,
    last_outcome text CHECK (last_outcome IN ('equal', 'differences', 'undecided')),
    -- Differences of the last completed run by kind.
    differences jsonb NOT NULL DEFAULT '{}',
    checked_at timestamptz NOT NULL,
    PRIMARY KEY (pipeline, database, collection)
);

CREATE TABLE reconciliation_repairs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    pipeline text COLLATE "C" NOT NULL,
    job_id uuid NOT NULL REFERENCES reconciliation_jobs ON DELETE CASCADE,
    -- Which kinds, and at most how many keys: more are refused, not cut.
    kinds text[] NOT NULL,
    max_keys integer NOT NULL CHECK (max_keys > 0),
    -- How many keys it will ask for, how many cannot be repaired this way, and why (dry run: shown when proposed).
    plan jsonb NOT NULL,
    state text NOT NULL DEFAULT 'proposed'
        CHECK (state IN ('proposed', 'approved', 'applying', 'verifying', 'done', 'failed', 'rejected')),
    proposed_by text NOT NULL,
    proposed_at timestamptz NOT NULL DEFAULT now(),
    decided_by text,
    decided_at timestamptz,
    worker text,
    heartbeat_at timestamptz,
    -- Keys asked for so far, failed ones, and what the verification found.
    progress jsonb NOT NULL DEFAULT '{}',
    verification_job_id uuid REFERENCES reconciliation_jobs ON DELETE SET NULL,
    error text,
    finished_at timestamptz,
    CHECK ((finished_at IS NOT NULL) = (state IN ('done', 'failed', 'rejected')))
);
CREATE INDEX reconciliation_repairs_by_pipeline ON reconciliation_repairs (pipeline, number);
CREATE UNIQUE INDEX reconciliation_repairs_at_once ON reconciliation_repairs (job_id)
    WHERE state IN ('proposed', 'approved', 'applying', 'verifying');
ALTER TABLE reconciliation_jobs ADD FOREIGN KEY (repair_id) REFERENCES reconciliation_repairs ON DELETE SET NULL;

-- The service listens, so that it acts at once.
CREATE FUNCTION notify_reconciliation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('reconciliation', COALESCE(NEW.id, OLD.id)::text);
    RETURN NULL;
END $$;
CREATE TRIGGER reconciliation_jobs_asked AFTER INSERT OR UPDATE OF wanted ON reconciliation_jobs
    FOR EACH ROW EXECUTE FUNCTION notify_reconciliation();
CREATE TRIGGER reconciliation_schedules_changed AFTER INSERT OR UPDATE OF config OR DELETE ON reconciliation_schedules
    FOR EACH ROW EXECUTE FUNCTION notify_reconciliation();
CREATE TRIGGER reconciliation_repairs_changed AFTER INSERT OR UPDATE OF state ON reconciliation_repairs
    FOR EACH ROW EXECUTE FUNCTION notify_reconciliation();

-- A pipeline that is gone, or whose tables a reset has dropped, has nothing left that was verified: one made anew under its
-- name must not inherit the old verdict. Nor may its schedules go on, its jobs run, its repairs be applied.
CREATE FUNCTION forget_reconciliation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- First: a run that is being kept holds its job, and its verdict must be here to be deleted.
    UPDATE reconciliation_jobs SET wanted = 'cancel'
        WHERE pipeline = OLD.name AND finished_at IS NULL AND wanted <> 'cancel';
    DELETE FROM reconciliation_verifications WHERE pipeline = OLD.name;
    UPDATE reconciliation_repairs SET state = 'rejected', error = 'its tables are gone', finished_at = now()
        WHERE pipeline = OLD.name AND state IN ('proposed', 'approved');
    IF TG_OP = 'DELETE' THEN
        DELETE FROM reconciliation_schedules WHERE pipeline = OLD.name;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER pipelines_forget_reconciliation AFTER DELETE ON pipelines
    FOR EACH ROW EXECUTE FUNCTION forget_reconciliation();
CREATE TRIGGER pipelines_reset_reconciliation AFTER UPDATE OF started ON pipelines
    FOR EACH ROW WHEN (OLD.started AND NOT NEW.started) EXECUTE FUNCTION forget_reconciliation();

UPDATE roles SET description = 'runs pipelines, changes rules, replays dead letters, reconciles' WHERE name = 'operator';
UPDATE roles SET description = 'reads pipelines, metrics and what reconciliation found' WHERE name = 'analyst';
