CREATE TABLE domains (
    name TEXT NOT NULL,
    env TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    token TEXT NOT NULL,
    hsts BIGINT NOT NULL,
    claimed BIGINT NOT NULL,
    checked BIGINT NOT NULL,
    proven BIGINT,
    missing BIGINT,
    PRIMARY KEY (name, env)
);
CREATE UNIQUE INDEX domains_proven ON domains (name) WHERE proven IS NOT NULL;
CREATE INDEX domains_by_env ON domains (env);
CREATE INDEX domains_by_check ON domains (checked);

CREATE TABLE certificates (
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    env TEXT REFERENCES environments (id) ON DELETE CASCADE,
    chain TEXT,
    sealed TEXT,
    expires BIGINT,
    due BIGINT,
    failures BIGINT NOT NULL,
    error TEXT,
    leased BIGINT NOT NULL,
    PRIMARY KEY (name, source)
);
CREATE INDEX certificates_by_due ON certificates (due);
CREATE INDEX certificates_by_env ON certificates (env);

CREATE TABLE acme_accounts (
    directory TEXT PRIMARY KEY,
    sealed TEXT NOT NULL
);

CREATE TABLE acme_orders (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX acme_orders_by_tenant ON acme_orders (tenant, at);
