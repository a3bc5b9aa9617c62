-- Where a tenant is in its life: active, suspended (by the operator, until it is resumed), or deleted (until it is restored, or
-- removed for good after `purge`).
ALTER TABLE tenants ADD COLUMN state TEXT NOT NULL DEFAULT 'active';
ALTER TABLE tenants ADD COLUMN changed BIGINT;
ALTER TABLE tenants ADD COLUMN purge BIGINT;
-- What the operator's own system calls it.
ALTER TABLE tenants ADD COLUMN external_id TEXT;
ALTER TABLE tenants ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';
CREATE UNIQUE INDEX tenants_by_external_id ON tenants (external_id);
CREATE INDEX tenants_by_purge ON tenants (purge);

CREATE TABLE tenant_tags (
    tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (tenant, name)
);
