ALTER TABLE signing_keys ADD COLUMN env TEXT REFERENCES environments (id) ON DELETE CASCADE;
CREATE INDEX signing_keys_by_env ON signing_keys (env);
