-- Pipelines as people want them, what the controller sees of them, and what it has been asked to do.
-- People's side writes `pipelines`, `operations` (new and cancelled ones) and `idempotency_keys`; the controller writes
-- `observations`, `conditions` and the progress of `operations`, and removes a pipeline whose deletion is done.

CREATE TABLE pipelines (
    name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9-]{0,40}$'),
    -- A pipeline that is made again under a deleted one's name is another one.
    id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    -- models.pipeline.PipelineConfig: without `desired` and without a version of its rules, which publishing counts.
    spec jsonb NOT NULL,
    -- Counts changes of the spec; with the id it is the ETag.
    version bigint NOT NULL DEFAULT 1,
    desired text NOT NULL DEFAULT 'stopped' CHECK (desired IN ('running', 'paused', 'stopped')),
    -- Counts moves (start, pause, …). `observations.reached_version` is the one that was last made true.
    desired_version bigint NOT NULL DEFAULT 0,
    desired_since timestamptz NOT NULL DEFAULT now(),
    -- It was started since it was made, or since a reset dropped its tables: what its tables rest on is fixed.
    started boolean NOT NULL DEFAULT false,
    deleting boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL
);

CREATE TABLE observations (
    pipeline text COLLATE "C" PRIMARY KEY REFERENCES pipelines ON DELETE CASCADE,
    reached_version bigint NOT NULL DEFAULT 0,
    -- Which `pipelines.version` is in cdc.pipelines, and the version that its rules were counted there.
    published_version bigint,
    rules_version integer,
    observed_at timestamptz NOT NULL
);

CREATE TABLE conditions (
    pipeline text COLLATE "C" NOT NULL REFERENCES pipelines ON DELETE CASCADE,
    kind text NOT NULL,
    status text NOT NULL CHECK (status IN ('true', 'false', 'unknown')),
    -- A word for programs, and a sentence for people.
    reason text NOT NULL,
    message text NOT NULL,
    -- Since when status and reason are what they are.
    since timestamptz NOT NULL,
    PRIMARY KEY (pipeline, kind)
);

-- What takes more than one step. They outlive their pipeline: how its deletion went is told here.
CREATE TABLE operations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    -- A pipeline's operations are worked one after another, in this order.
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    pipeline text COLLATE "C" NOT NULL,
    pipeline_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('restart', 'resync', 'reset', 'delete')),
    arguments jsonb NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'running', 'succeeded', 'failed', 'cancelled')),
    -- How many times in a row the step at hand has gone wrong.
    attempts integer NOT NULL DEFAULT 0,
    -- What the last step returned: for people, and for the next step, which may be another process's.
    message text,
    memory jsonb,
    -- The controller leaves the pipeline's connector alone meanwhile.
    holds_connector boolean NOT NULL DEFAULT true,
    -- Of the last attempt, if that went wrong.
    error text,
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    next_attempt_at timestamptz,
    finished_at timestamptz,
    CHECK ((finished_at IS NULL) = (state IN ('pending', 'running')))
);
CREATE INDEX operations_by_pipeline ON operations (pipeline, number);
CREATE INDEX operations_unfinished ON operations (pipeline, number) WHERE state IN ('pending', 'running');

-- Answers to POST requests that carried an Idempotency-Key, kept for a day.
CREATE TABLE idempotency_keys (
    principal uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    -- SHA-256 of method, path and body: the same key for another request is a mistake.
    request bytea NOT NULL,
    status integer NOT NULL,
    headers jsonb NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (principal, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- The controller listens, so that it acts at once whoever made the change.
CREATE FUNCTION notify_controller() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('pipelines', to_jsonb(NEW) ->> TG_ARGV[0]);
    RETURN NULL;
END $$;
CREATE TRIGGER pipelines_changed AFTER INSERT OR UPDATE ON pipelines
    FOR EACH ROW EXECUTE FUNCTION notify_controller('name');
CREATE TRIGGER operations_asked AFTER INSERT ON operations
    FOR EACH ROW EXECUTE FUNCTION notify_controller('pipeline');
CREATE TRIGGER operations_cancelled AFTER UPDATE OF state ON operations
    FOR EACH ROW WHEN (NEW.state = 'cancelled') EXECUTE FUNCTION notify_controller('pipeline');
