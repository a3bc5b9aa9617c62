-- The keys that values are sealed with, each wrapped under the key-encryption key that `settings.master_key` names. A tenant's
-- go with it: what they have sealed is then unreadable wherever it was copied to.
CREATE TABLE data_keys (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    tenant TEXT REFERENCES tenants (id) ON DELETE CASCADE,
    kek TEXT NOT NULL,
    wrapped TEXT NOT NULL,
    -- 1 for the one that seals, null for those that only open.
    current BIGINT,
    created BIGINT NOT NULL,
    retired BIGINT,
    UNIQUE (owner, current)
);
CREATE INDEX data_keys_by_tenant ON data_keys (tenant);

-- By which key a value is sealed: null is the one from before there were data keys. None that is named here can go.
ALTER TABLE secrets ADD COLUMN data_key TEXT REFERENCES data_keys (id);
ALTER TABLE signing_keys ADD COLUMN data_key TEXT REFERENCES data_keys (id);
CREATE INDEX secrets_by_data_key ON secrets (data_key);
CREATE INDEX signing_keys_by_data_key ON signing_keys (data_key);
