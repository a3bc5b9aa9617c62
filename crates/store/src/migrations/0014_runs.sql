-- Minted credentials. One ends with whatever it stands on: the credential that minted it, and so on down to a key.
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    run TEXT NOT NULL,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    env TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    -- The key that it stands on, and the ids of the minted ones between them, with itself as the last.
    root TEXT NOT NULL,
    path TEXT NOT NULL,
    depth BIGINT NOT NULL,
    scopes TEXT NOT NULL,
    tools TEXT,
    args TEXT,
    source TEXT,
    created BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    revoked BIGINT
);
CREATE INDEX runs_by_tenant ON runs (tenant, id);
CREATE INDEX runs_live ON runs (tenant, ends) WHERE revoked IS NULL;
CREATE INDEX runs_by_root ON runs (root);
CREATE INDEX runs_by_env ON runs (env);
CREATE INDEX runs_by_end ON runs (ends);

ALTER TABLE keys ADD COLUMN cidrs TEXT;
ALTER TABLE keys ADD COLUMN rotated_to TEXT;
-- The first of the keys that took each other's place; NULL is the key itself.
ALTER TABLE keys ADD COLUMN lineage TEXT;
CREATE INDEX keys_by_lineage ON keys (lineage);

-- Of each purpose one key is active (`current`), at most one is next, and those before are retired.
ALTER TABLE signing_keys ADD COLUMN state TEXT NOT NULL DEFAULT 'active';
ALTER TABLE signing_keys ADD COLUMN activated BIGINT;
ALTER TABLE signing_keys ADD COLUMN retired BIGINT;
CREATE UNIQUE INDEX signing_keys_next ON signing_keys (purpose) WHERE state = 'next';

-- Which credential made which, for as long as changes are recorded: the rows above go soon after their end.
CREATE TABLE minted (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    parent TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE INDEX minted_by_time ON minted (created);

-- Counts what other gateways have to forget.
CREATE TABLE news (
    name TEXT PRIMARY KEY,
    number BIGINT NOT NULL
);
INSERT INTO news (name, number) VALUES ('credentials', 0);

-- What that was, for a while: the id of a credential or an environment, or a word.
CREATE TABLE ended (
    number BIGINT PRIMARY KEY,
    what TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX ended_by_time ON ended (at);
