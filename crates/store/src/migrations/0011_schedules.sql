-- When each schedule of a live release is due next, and what has become of it last.
CREATE TABLE schedules (
    env TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    cron TEXT NOT NULL,
    timezone TEXT NOT NULL,
    due BIGINT,
    ran BIGINT,
    outcome TEXT,
    PRIMARY KEY (env, name)
);
CREATE INDEX schedules_by_due ON schedules (due);

-- Runs that are not over: `due` is when the next attempt begins, or when the lease of the one that runs ends.
CREATE TABLE firings (
    env TEXT NOT NULL,
    name TEXT NOT NULL,
    tick BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    running BIGINT NOT NULL,
    due BIGINT NOT NULL,
    PRIMARY KEY (env, name, tick),
    FOREIGN KEY (env, name) REFERENCES schedules (env, name) ON DELETE CASCADE
);
CREATE INDEX firings_by_due ON firings (due);
