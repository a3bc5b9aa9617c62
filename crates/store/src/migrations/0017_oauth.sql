-- What a client was given for its user's consent, until it shows it: a hash of it. One that was used is kept for a while,
-- so that a second use is seen.
CREATE TABLE oauth_codes (
    hash TEXT PRIMARY KEY,
    client TEXT NOT NULL,
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    env TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    words TEXT NOT NULL,
    resource TEXT NOT NULL,
    redirect TEXT NOT NULL,
    challenge TEXT NOT NULL,
    expires BIGINT NOT NULL,
    family TEXT,
    replayed BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX oauth_codes_by_end ON oauth_codes (expires);

-- A consent that lives: a minted credential that nobody has the token of, on which the access tokens stand. `generation`
-- counts its refresh tokens, of which the last one is good.
CREATE TABLE oauth_families (
    id TEXT PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    client TEXT NOT NULL,
    name TEXT NOT NULL,
    words TEXT NOT NULL,
    resource TEXT NOT NULL,
    generation BIGINT NOT NULL
);

-- Devices that wait for somebody to type their code: a hash of what the device asks with.
CREATE TABLE oauth_devices (
    hash TEXT PRIMARY KEY,
    user_code TEXT NOT NULL UNIQUE,
    client TEXT NOT NULL,
    name TEXT NOT NULL,
    words TEXT NOT NULL,
    resource TEXT NOT NULL,
    begun BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    state TEXT NOT NULL,
    owner TEXT,
    env TEXT REFERENCES environments (id) ON DELETE CASCADE
);
CREATE INDEX oauth_devices_by_end ON oauth_devices (expires);
