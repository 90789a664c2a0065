-- Who may use the dashboard and the API, what they were seen to change, and what they keep there.

CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL CONSTRAINT user_name_once UNIQUE,      -- people.read_name: lower case
    role TEXT NOT NULL,                       -- people.Role
    password TEXT NOT NULL,                   -- passwords.hash_password
    totp TEXT NOT NULL,                       -- seed, sealed; empty: none
    totp_on INTEGER NOT NULL,                 -- 0: set up, not confirmed yet
    totp_step INTEGER NOT NULL,               -- the last one whose code was taken
    recovery TEXT NOT NULL,                   -- SHA-256 of codes that can each be used once, as JSON
    known TEXT NOT NULL,                      -- networks that they signed in from, as JSON
    made_ms INTEGER NOT NULL,
    CONSTRAINT user_role_known CHECK (role IN ('viewer', 'operator', 'owner'))
) STRICT;

CREATE TABLE sessions (
    hash TEXT PRIMARY KEY,                    -- SHA-256 of what the cookie holds
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    made_ms INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    prefix TEXT NOT NULL                      -- network it was made from, /24 or /64
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_user ON sessions (user_id);

-- Links that let somebody choose a password, each once.
CREATE TABLE sign_in_codes (
    hash TEXT PRIMARY KEY,                    -- SHA-256 of the code
    purpose TEXT NOT NULL,                    -- people.Purpose
    name TEXT NOT NULL,                       -- of the user; empty: they choose one
    role TEXT NOT NULL,
    made_by TEXT NOT NULL,
    made_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    CONSTRAINT code_role_known CHECK (role IN ('viewer', 'operator', 'owner'))
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL CONSTRAINT token_name_once UNIQUE,
    hash TEXT NOT NULL CONSTRAINT token_hash_once UNIQUE,     -- SHA-256 of the token
    scopes TEXT NOT NULL,                     -- separated by spaces
    user_id INTEGER REFERENCES users (id) ON DELETE CASCADE,  -- NULL: made by the command line
    made_ms INTEGER NOT NULL,
    expires_ms INTEGER,                       -- NULL: never
    used_ms INTEGER                           -- about when it was last used
) STRICT;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,
    who TEXT NOT NULL,
    kind TEXT NOT NULL,                       -- session, token, command line, nobody
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    fields TEXT NOT NULL,                     -- names of what was given, as JSON; never a value
    status INTEGER NOT NULL,                  -- of the answer
    prefix TEXT NOT NULL                      -- network it came from
) STRICT;

CREATE TABLE views (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    page TEXT NOT NULL,
    query TEXT NOT NULL,
    CONSTRAINT view_name_once UNIQUE (user_id, page, name)
) STRICT;
