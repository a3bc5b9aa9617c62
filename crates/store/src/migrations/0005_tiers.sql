ALTER TABLE workspaces ADD COLUMN kept TEXT;
ALTER TABLE workspaces ADD COLUMN archive TEXT;
ALTER TABLE workspaces ADD COLUMN template TEXT NOT NULL DEFAULT 'blank';
ALTER TABLE workspaces ADD COLUMN frozen TEXT;
ALTER TABLE workspaces ADD COLUMN ended TEXT;
CREATE INDEX workspaces_by_use ON workspaces (kept, used);

ALTER TABLE workspace_snapshots ADD COLUMN digest TEXT;
ALTER TABLE workspace_snapshots ADD COLUMN layer TEXT;
