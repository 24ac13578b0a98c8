-- Files of tenants, and batches: their shards of lines under leases, and the groups of results that were committed.
-- `document`: the batch as JSON; what statements look for has columns of its own beside it.
CREATE TABLE file (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    organization TEXT NOT NULL,
    purpose TEXT NOT NULL,
    filename TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    created_at_s REAL NOT NULL,
    expires_at_s REAL
) WITHOUT ROWID;

CREATE INDEX file_of_tenant ON file (tenant, created_at_s, id);
CREATE INDEX file_expires ON file (expires_at_s);

CREATE TABLE batch (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    state TEXT NOT NULL,
    input_file TEXT NOT NULL,
    created_at_s REAL NOT NULL,
    expires_at_s REAL NOT NULL,
    over_at_s REAL,
    revision INTEGER NOT NULL,
    worker TEXT NOT NULL,
    lease_until_s REAL NOT NULL,
    document BLOB NOT NULL
) WITHOUT ROWID;

CREATE INDEX batch_of_tenant ON batch (tenant, created_at_s, id);
CREATE INDEX batch_over ON batch (over_at_s, created_at_s);
CREATE INDEX batch_input ON batch (input_file);

CREATE TABLE batch_shard (
    batch TEXT NOT NULL REFERENCES batch (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    state TEXT NOT NULL,
    first INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    file_offset INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    token INTEGER NOT NULL,
    worker TEXT NOT NULL,
    lease_until_s REAL NOT NULL,
    stalls INTEGER NOT NULL,
    suspect INTEGER,
    suspect_tries INTEGER NOT NULL,
    finished INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost_nano_usd INTEGER NOT NULL,
    PRIMARY KEY (batch, number)
) WITHOUT ROWID;

CREATE INDEX batch_shard_open ON batch_shard (state, lease_until_s);

CREATE TABLE batch_group (
    batch TEXT NOT NULL REFERENCES batch (id) ON DELETE CASCADE,
    shard INTEGER NOT NULL,
    object TEXT NOT NULL,
    checksum TEXT NOT NULL,
    lines BLOB NOT NULL,
    PRIMARY KEY (batch, shard, object)
) WITHOUT ROWID;

-- A line of a batch is billed once: by the record that is named here. What other records of it cost is kept apart.
ALTER TABLE usage ADD COLUMN item TEXT NOT NULL DEFAULT '';
ALTER TABLE usage ADD COLUMN repeat INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_hour ADD COLUMN repeat_nano_usd INTEGER NOT NULL DEFAULT 0;

CREATE TABLE usage_item (
    item TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    at_s REAL NOT NULL
) WITHOUT ROWID;

CREATE INDEX usage_item_at ON usage_item (at_s);
