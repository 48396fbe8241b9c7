-- Who did what: every call, allowed or refused. Entries are only ever added, and chained: the hash of each covers the
-- hash before it (control_plane/models/audit_chain.py), so what was changed, removed or slipped in afterwards shows.

CREATE TABLE audit_logs (
    -- The place in the chain: 1, 2, 3 … without gaps. A sequence would leave gaps, which would look like removals.
    id bigint PRIMARY KEY CHECK (id > 0),
    -- When the call came. Entries are chained as calls end, so `at` is not quite in the order of `id`.
    at timestamptz NOT NULL,
    -- No foreign key: what somebody did outlives the account.
    user_id uuid,
    user_name text,
    roles text[] NOT NULL,
    action text NOT NULL,
    resource text,
    outcome text NOT NULL CHECK (outcome IN ('allowed', 'refused', 'failed')),
    status smallint NOT NULL,
    code text,
    request_id text NOT NULL,
    address text,
    duration_us bigint NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
);
CREATE INDEX audit_logs_by_time ON audit_logs (at);
CREATE INDEX audit_logs_by_user_id ON audit_logs (user_id, id);
CREATE INDEX audit_logs_by_user_name ON audit_logs (lower(user_name), id);
CREATE INDEX audit_logs_by_action ON audit_logs (action, id);
CREATE INDEX audit_logs_by_resource ON audit_logs (resource, id);
CREATE INDEX audit_logs_not_allowed ON audit_logs (outcome, id) WHERE outcome <> 'allowed';

-- The newest entry: what the next one is chained to, the lock that writers of all processes take in turn, and how a
-- removed end of the chain shows. Rewritten with each batch of entries, so it keeps room for its next version.
CREATE TABLE audit_head (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    entries bigint NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32)
) WITH (fillfactor = 10);
INSERT INTO audit_head (entries, hash) VALUES (0, decode(repeat('00', 32), 'hex'));

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% only grows: % is refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege';
END $$;

-- By statement, not by row: it refuses before it is known whether a row is hit, and it knows TRUNCATE.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_logs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER forward_only BEFORE UPDATE ON audit_head
    FOR EACH ROW WHEN (NEW.entries <= OLD.entries) EXECUTE FUNCTION refuse_audit_change();
-- ALWAYS: session_replication_role = replica, which silences other triggers, does not silence these.
ALTER TABLE audit_logs ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit_head ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE audit_head ENABLE ALWAYS TRIGGER forward_only;

-- Lock the chain until the transaction ends, and tell its newest entry. A holder that freezes is cut off by the
-- server, and one that waits gives up: a stuck process must not hold up every call of every other.
CREATE FUNCTION lock_audit_head(OUT entries bigint, OUT hash bytea) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('lock_timeout', '10s', true);
    PERFORM set_config('idle_in_transaction_session_timeout', '10s', true);
    SELECT head.entries, head.hash INTO STRICT entries, hash FROM audit_head AS head FOR UPDATE;
END $$;
