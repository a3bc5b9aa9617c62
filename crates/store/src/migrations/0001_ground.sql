CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE tenants (
    id TEXT PRIMARY KEY,
    slug TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    created BIGINT NOT NULL
);

CREATE TABLE environments (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    slug TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    template TEXT NOT NULL,
    plan TEXT NOT NULL,
    tags TEXT NOT NULL,
    external_id TEXT,
    created BIGINT NOT NULL,
    UNIQUE (tenant, external_id)
);
CREATE INDEX environments_by_tenant ON environments (tenant, id);

CREATE TABLE environment_tags (
    env TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (env, name)
);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id),
    env TEXT REFERENCES environments (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    revoked BIGINT,
    last_used BIGINT
);
CREATE INDEX keys_by_tenant ON keys (tenant, id);
CREATE INDEX keys_by_env ON keys (env);

CREATE TABLE signing_keys (
    id TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,
    public TEXT NOT NULL,
    sealed TEXT NOT NULL,
    created BIGINT NOT NULL,
    current BIGINT
);
CREATE UNIQUE INDEX signing_keys_current ON signing_keys (purpose, current);

CREATE TABLE secrets (
    env TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    sealed TEXT NOT NULL,
    version BIGINT NOT NULL,
    updated BIGINT NOT NULL,
    PRIMARY KEY (env, name)
);

CREATE TABLE replays (
    tenant TEXT NOT NULL,
    credential TEXT NOT NULL,
    name TEXT NOT NULL,
    digest TEXT NOT NULL,
    owner TEXT NOT NULL,
    output TEXT,
    claimed BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    PRIMARY KEY (tenant, credential, name)
);
CREATE INDEX replays_by_expiry ON replays (expires);

CREATE TABLE spent (
    id TEXT PRIMARY KEY,
    expires BIGINT NOT NULL
);
CREATE INDEX spent_by_expiry ON spent (expires);

CREATE TABLE calls (
    id TEXT PRIMARY KEY,
    at BIGINT NOT NULL,
    tenant TEXT NOT NULL,
    env TEXT,
    principal TEXT NOT NULL,
    credential TEXT NOT NULL,
    surface TEXT NOT NULL,
    tool TEXT NOT NULL,
    effect TEXT NOT NULL,
    error TEXT,
    took_us BIGINT NOT NULL,
    input_digest TEXT NOT NULL
);
CREATE INDEX calls_by_tenant ON calls (tenant, id);

CREATE TABLE usage (
    tenant TEXT NOT NULL,
    env TEXT NOT NULL,
    hour BIGINT NOT NULL,
    tool TEXT NOT NULL,
    calls BIGINT NOT NULL,
    errors BIGINT NOT NULL,
    took_us BIGINT NOT NULL,
    PRIMARY KEY (tenant, env, hour, tool)
);
