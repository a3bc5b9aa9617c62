-- Bundles of limits, by name. `limits` is a JSON object; what it does not name is as configured.
CREATE TABLE plans (
    name TEXT PRIMARY KEY,
    limits TEXT NOT NULL,
    updated BIGINT NOT NULL
);
INSERT INTO plans (name, limits, updated) VALUES
    ('default', '{}', 0),
    ('free', '{"tenant":{"calls_per_second":20,"calls_burst":100,"calls_at_once":8,"environments":2},"environment":{"visits_per_second":50,"visits_burst":200,"visits_at_once":32,"database_bytes":104857600,"files_bytes":524288000}}', 0),
    ('pro', '{"tenant":{"calls_per_second":200,"calls_burst":1000,"calls_at_once":64,"environments":50},"environment":{"visits_per_second":500,"visits_burst":2000,"visits_at_once":256,"database_bytes":1073741824,"files_bytes":10737418240}}', 0);

-- What a tenant has: its plan, and what is its own of it.
ALTER TABLE tenants ADD COLUMN plan TEXT NOT NULL DEFAULT 'default';
ALTER TABLE tenants ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
-- What environments were labelled with before bounds nobody.
UPDATE environments SET plan = 'default';
CREATE INDEX tenants_by_plan ON tenants (plan);
CREATE INDEX environments_by_plan ON environments (plan);
