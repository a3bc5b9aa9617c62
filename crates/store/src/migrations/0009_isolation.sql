-- The least that a workspace's sandboxes must be kept apart by, as whoever made it demanded.
ALTER TABLE workspaces ADD COLUMN isolation TEXT;
