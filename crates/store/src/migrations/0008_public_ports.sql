CREATE TABLE public_ports (
    workspace TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    port BIGINT NOT NULL,
    PRIMARY KEY (workspace, port)
);
