-- Organizations and tenants, who changed what, and what gateways that remember keys must forget.
-- `change` has no gaps: writers take turns, so numbers are in the order of commits.
ALTER TABLE key ADD COLUMN policy TEXT;
ALTER TABLE key ADD COLUMN networks TEXT NOT NULL DEFAULT '[]';
ALTER TABLE key ADD COLUMN successor TEXT;

ALTER TABLE usage ADD COLUMN organization TEXT NOT NULL DEFAULT '';

DROP TRIGGER key_added;
DROP TRIGGER key_changed;
DROP TRIGGER key_deleted;
DROP TABLE key_revision;

CREATE TABLE organization (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    plan TEXT,
    quota TEXT,
    suspended INTEGER NOT NULL,
    created_at_s REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE tenant (
    id TEXT PRIMARY KEY,
    organization TEXT REFERENCES organization (id),
    name TEXT NOT NULL,
    plan TEXT,
    quota TEXT,
    policy TEXT,
    suspended INTEGER NOT NULL,
    created_at_s REAL NOT NULL
) WITHOUT ROWID;

CREATE INDEX tenant_organization ON tenant (organization, id);

INSERT INTO tenant (id, name, suspended, created_at_s)
SELECT tenant, '', 0, min(created_at_s) FROM key GROUP BY tenant;

CREATE TABLE audit (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at_s REAL NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    organization TEXT,
    before BLOB,
    after BLOB
);

CREATE INDEX audit_organization ON audit (organization, number);
CREATE INDEX audit_target ON audit (target, number);

CREATE TABLE change (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    subject TEXT NOT NULL,
    id TEXT NOT NULL,
    digest BLOB NOT NULL
);

-- Which key secret this database's keys were made with.
CREATE TABLE seal (only INTEGER PRIMARY KEY CHECK (only = 1), fingerprint BLOB NOT NULL);
