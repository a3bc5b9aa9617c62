-- People of a tenant. Each acts by a key of kind 'member' whose value nobody has: who has signed in stands on its id.
CREATE TABLE members (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL REFERENCES tenants (id) ON DELETE CASCADE,
    key TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    -- In lower case. Null for one of a directory that told none.
    email TEXT,
    role TEXT NOT NULL,
    -- Argon2id, as a PHC string.
    password TEXT,
    -- Who vouches for them, and what they are called there.
    issuer TEXT,
    subject TEXT,
    -- The SHA-256 of an invitation that was not taken up yet.
    invitation TEXT UNIQUE,
    invited_until BIGINT,
    created BIGINT NOT NULL,
    joined BIGINT
);
CREATE UNIQUE INDEX members_by_email ON members (tenant, email);
CREATE UNIQUE INDEX members_by_subject ON members (tenant, issuer, subject);
