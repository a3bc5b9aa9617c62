-- Acts of each tenant, in a chain: `hash` is of the hash before and of `body`, which holds the tenant and the number.
CREATE TABLE audit (
    tenant TEXT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    env TEXT,
    body TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (tenant, seq)
);
CREATE INDEX audit_by_time ON audit (at);

-- Where each chain ends, signed whenever it grows.
CREATE TABLE audit_heads (
    tenant TEXT PRIMARY KEY,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    at BIGINT NOT NULL,
    signature TEXT NOT NULL,
    -- The end that was last made a checkpoint of, and when.
    checked BIGINT NOT NULL DEFAULT 0,
    checked_at BIGINT NOT NULL DEFAULT 0
);

-- What was signed of a chain to be kept: `checkpoint`, and `start`, before which entries were removed as too old.
CREATE TABLE audit_marks (
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,
    at BIGINT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (tenant, kind, seq)
);

CREATE INDEX calls_by_age ON calls (effect, at);
