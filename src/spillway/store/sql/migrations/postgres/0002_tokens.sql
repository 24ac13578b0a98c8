-- Tokens of the admin API, as keyed digests; and answers to writes that may be asked for again.
CREATE TABLE token (
    id TEXT COLLATE "C" PRIMARY KEY,
    digest BYTEA NOT NULL UNIQUE,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    organization TEXT COLLATE "C",
    created_at_s DOUBLE PRECISION NOT NULL,
    expires_at_s DOUBLE PRECISION,
    revoked_at_s DOUBLE PRECISION,
    last4 TEXT NOT NULL
);

CREATE TABLE answer (
    id TEXT COLLATE "C" PRIMARY KEY,
    fingerprint BYTEA NOT NULL,
    at_s DOUBLE PRECISION NOT NULL,
    status BIGINT,
    body BYTEA
);

CREATE INDEX answer_at ON answer (at_s);
