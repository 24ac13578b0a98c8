-- The ledger: one row a request, and sums per hour that are updated in the same transaction.
-- Money is whole nano-dollars, so that sums are exact in any order.
CREATE TABLE usage (
    request TEXT PRIMARY KEY,
    finished_at_s REAL NOT NULL,
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT,
    pool TEXT,
    priority TEXT NOT NULL,
    outcome TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    spilled INTEGER NOT NULL,
    streamed INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER,
    completion_tokens INTEGER NOT NULL,
    estimated INTEGER NOT NULL,
    ttft_s REAL,
    tpot_s REAL,
    duration_s REAL NOT NULL,
    cost_nano_usd INTEGER NOT NULL
);

CREATE INDEX usage_finished ON usage (finished_at_s);

CREATE TABLE usage_hour (
    hour_s INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    model TEXT NOT NULL,
    pool TEXT NOT NULL,
    requests INTEGER NOT NULL,
    ok INTEGER NOT NULL,
    spilled INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost_nano_usd INTEGER NOT NULL,
    PRIMARY KEY (hour_s, tenant, model, pool)
) WITHOUT ROWID;

CREATE INDEX usage_hour_tenant ON usage_hour (tenant, hour_s, model, pool);
