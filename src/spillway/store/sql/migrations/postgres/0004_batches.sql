-- Files of tenants, and batches: their shards of lines under leases, and the groups of results that were committed.
-- `document`: the batch as JSON; what statements look for has columns of its own beside it.
CREATE TABLE file (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    organization TEXT COLLATE "C" NOT NULL,
    purpose TEXT NOT NULL,
    filename TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    created_at_s DOUBLE PRECISION NOT NULL,
    expires_at_s DOUBLE PRECISION
);

CREATE INDEX file_of_tenant ON file (tenant, created_at_s, id);
CREATE INDEX file_expires ON file (expires_at_s);

CREATE TABLE batch (
    id TEXT COLLATE "C" PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    state TEXT NOT NULL,
    input_file TEXT COLLATE "C" NOT NULL,
    created_at_s DOUBLE PRECISION NOT NULL,
    expires_at_s DOUBLE PRECISION NOT NULL,
    over_at_s DOUBLE PRECISION,
    revision BIGINT NOT NULL,
    worker TEXT NOT NULL,
    lease_until_s DOUBLE PRECISION NOT NULL,
    document BYTEA NOT NULL
);

CREATE INDEX batch_of_tenant ON batch (tenant, created_at_s, id);
CREATE INDEX batch_over ON batch (over_at_s, created_at_s);
CREATE INDEX batch_input ON batch (input_file);

CREATE TABLE batch_shard (
    batch TEXT COLLATE "C" NOT NULL REFERENCES batch (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    state TEXT NOT NULL,
    first BIGINT NOT NULL,
    lines BIGINT NOT NULL,
    file_offset BIGINT NOT NULL,
    size_bytes BIGINT NOT NULL,
    token BIGINT NOT NULL,
    worker TEXT NOT NULL,
    lease_until_s DOUBLE PRECISION NOT NULL,
    stalls BIGINT NOT NULL,
    suspect BIGINT,
    suspect_tries BIGINT NOT NULL,
    finished BIGINT NOT NULL,
    completed BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    cached_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    cost_nano_usd BIGINT NOT NULL,
    PRIMARY KEY (batch, number)
);

CREATE INDEX batch_shard_open ON batch_shard (state, lease_until_s);

CREATE TABLE batch_group (
    batch TEXT COLLATE "C" NOT NULL REFERENCES batch (id) ON DELETE CASCADE,
    shard BIGINT NOT NULL,
    object TEXT NOT NULL,
    checksum TEXT NOT NULL,
    lines BYTEA NOT NULL,
    PRIMARY KEY (batch, shard, object)
);

-- A line of a batch is billed once: by the record that is named here. What other records of it cost is kept apart.
ALTER TABLE usage ADD COLUMN item TEXT NOT NULL DEFAULT '';
ALTER TABLE usage ADD COLUMN repeat BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_hour ADD COLUMN repeat_nano_usd BIGINT NOT NULL DEFAULT 0;

CREATE TABLE usage_item (
    item TEXT COLLATE "C" PRIMARY KEY,
    request TEXT NOT NULL,
    at_s DOUBLE PRECISION NOT NULL
);

CREATE INDEX usage_item_at ON usage_item (at_s);
