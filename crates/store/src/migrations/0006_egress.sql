CREATE TABLE egress (
    env TEXT PRIMARY KEY REFERENCES environments (id) ON DELETE CASCADE,
    allow TEXT NOT NULL
);
