-- The command that serves a port of a workspace's sandbox, and begins again where it is wanted.
CREATE TABLE served_ports (
    workspace TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    port BIGINT NOT NULL,
    command TEXT NOT NULL,
    cwd TEXT,
    PRIMARY KEY (workspace, port)
);
-- The least that all sandboxes of an environment must be kept apart by, as its tenant demands.
CREATE TABLE demands (
    env TEXT PRIMARY KEY REFERENCES environments (id) ON DELETE CASCADE,
    isolation TEXT NOT NULL
);
