-- Who may call the API: people (users, their roles and sessions) and machines (service tokens).
-- Times come from the API's clock, not from the database's: one clock decides what has expired.

CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL CHECK (name <> ''),
    password_hash text NOT NULL,
    -- Set by an admin's reset and for a generated first password: nothing else is allowed until it is changed.
    must_change_password boolean NOT NULL DEFAULT false,
    disabled boolean NOT NULL DEFAULT false,
    -- Row scope: the names of the pipelines this user may see and touch; NULL is all of them.
    pipelines text[],
    created_at timestamptz NOT NULL,
    password_changed_at timestamptz NOT NULL,
    last_login_at timestamptz
);
-- Names differ by more than case: nobody can pass for another by writing Root for root.
CREATE UNIQUE INDEX users_by_name ON users (lower(name));

-- What each role may do stands in code (control_plane/permissions.py); this table keeps user_roles to real ones.
CREATE TABLE roles (
    name text PRIMARY KEY,
    description text NOT NULL
);
INSERT INTO roles (name, description) VALUES
    ('admin', 'everything, users and service tokens included'),
    ('operator', 'runs pipelines, changes rules, replays dead letters'),
    ('analyst', 'reads pipelines, metrics and masked dead letters'),
    ('auditor', 'reads the audit trail');

CREATE TABLE user_roles (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role text NOT NULL REFERENCES roles,
    PRIMARY KEY (user_id, role)
);
CREATE INDEX user_roles_by_role ON user_roles (role);

-- One sign-in, and the family of refresh tokens that come from it. Access tokens name it: revoked means refused at once.
CREATE TABLE sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    address text,
    revoked_at timestamptz,
    revoked_why text
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_end ON sessions (expires_at);

CREATE TABLE refresh_tokens (
    -- SHA-256 of the token, which has 256 random bits: nothing to guess, so no salt and no slow hash.
    hash bytea PRIMARY KEY,
    session_id uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    issued_at timestamptz NOT NULL,
    -- Exchanged for its successor. One that comes a second time was stolen, or its thief came first.
    used_at timestamptz
);
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);

CREATE TABLE service_tokens (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL CHECK (name <> ''),
    -- The token's first characters, which tell people which one is meant, and SHA-256 of the whole.
    prefix text NOT NULL,
    hash bytea NOT NULL UNIQUE,
    permissions text[] NOT NULL,
    pipelines text[],
    created_by uuid REFERENCES users ON DELETE SET NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at timestamptz
);
-- A name may be used again once its token was revoked: that is how one is replaced.
CREATE UNIQUE INDEX service_tokens_by_name ON service_tokens (lower(name)) WHERE revoked_at IS NULL;

-- Failed sign-ins, counted by user name and by address, over all API processes.
CREATE TABLE login_failures (
    -- 'address:…', or 'user:' and SHA-256 of the name: people type passwords where names belong.
    subject text PRIMARY KEY,
    failures integer NOT NULL,
    last_failure_at timestamptz NOT NULL,
    blocked_until timestamptz NOT NULL
);
CREATE INDEX login_failures_by_time ON login_failures (last_failure_at);
