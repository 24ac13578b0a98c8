-- Tokens of the admin API, as keyed digests; and answers to writes that may be asked for again.
CREATE TABLE token (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    organization TEXT,
    created_at_s REAL NOT NULL,
    expires_at_s REAL,
    revoked_at_s REAL,
    last4 TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE answer (
    id TEXT PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    at_s REAL NOT NULL,
    status INTEGER,
    body BLOB
) WITHOUT ROWID;

CREATE INDEX answer_at ON answer (at_s);
