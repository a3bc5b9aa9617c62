CREATE TABLE workspaces (
    id TEXT PRIMARY KEY,
    env TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    sandbox TEXT NOT NULL UNIQUE,
    quota BIGINT NOT NULL,
    created BIGINT NOT NULL,
    used BIGINT NOT NULL,
    UNIQUE (env, name)
);
CREATE INDEX workspaces_by_tenant ON workspaces (tenant);

CREATE TABLE workspace_snapshots (
    id TEXT PRIMARY KEY,
    workspace TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    name TEXT,
    created BIGINT NOT NULL
);
CREATE INDEX workspace_snapshots_by_workspace ON workspace_snapshots (workspace, created);
