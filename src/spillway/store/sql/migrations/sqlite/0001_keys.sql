-- Keys. `change` counts changes of keys, so that the process that serves notices what another one did.
CREATE TABLE key (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    models TEXT,
    highest_priority TEXT NOT NULL,
    created_at_s REAL NOT NULL,
    expires_at_s REAL,
    revoked_at_s REAL,
    last4 TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX key_tenant ON key (tenant, id);

CREATE TABLE key_revision (changes INTEGER NOT NULL);
INSERT INTO key_revision (changes) VALUES (0);

CREATE TRIGGER key_added AFTER INSERT ON key BEGIN
    UPDATE key_revision SET changes = changes + 1;
END;

CREATE TRIGGER key_changed AFTER UPDATE ON key BEGIN
    UPDATE key_revision SET changes = changes + 1;
END;

CREATE TRIGGER key_deleted AFTER DELETE ON key BEGIN
    UPDATE key_revision SET changes = changes + 1;
END;
