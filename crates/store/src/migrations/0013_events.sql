-- Environments whose functions are told of events, and until when somebody tells them.
CREATE TABLE listeners (
    env TEXT PRIMARY KEY REFERENCES environments (id) ON DELETE CASCADE,
    until BIGINT NOT NULL
);
