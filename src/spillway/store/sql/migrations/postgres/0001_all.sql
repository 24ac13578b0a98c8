-- Everything that SQLite's migrations 1 to 5 come to. Text is compared byte by byte, as there: pages and cursors have one order.
-- Truth is 0 or 1, money is whole nano-dollars, times are Unix seconds.
CREATE TABLE organization (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT NOT NULL,
    plan TEXT,
    quota TEXT,
    suspended BIGINT NOT NULL,
    created_at_s DOUBLE PRECISION NOT NULL
);

CREATE TABLE tenant (
    id TEXT COLLATE "C" PRIMARY KEY,
    organization TEXT COLLATE "C" REFERENCES organization (id),
    name TEXT NOT NULL,
    plan TEXT,
    quota TEXT,
    policy TEXT,
    suspended BIGINT NOT NULL,
    created_at_s DOUBLE PRECISION NOT NULL
);
CREATE INDEX tenant_organization ON tenant (organization, id);

CREATE TABLE key (
    id TEXT COLLATE "C" PRIMARY KEY,
    digest BYTEA NOT NULL UNIQUE,
    tenant TEXT COLLATE "C" NOT NULL,
    name TEXT NOT NULL,
    models TEXT,
    highest_priority TEXT NOT NULL,
    created_at_s DOUBLE PRECISION NOT NULL,
    expires_at_s DOUBLE PRECISION,
    revoked_at_s DOUBLE PRECISION,
    last4 TEXT NOT NULL,
    policy TEXT,
    networks TEXT NOT NULL,
    successor TEXT
);
CREATE INDEX key_tenant ON key (tenant, id);

CREATE TABLE audit (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_s DOUBLE PRECISION NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    organization TEXT COLLATE "C",
    before BYTEA,
    after BYTEA
);
CREATE INDEX audit_organization ON audit (organization, number);
CREATE INDEX audit_target ON audit (target, number);

-- Numbers of changes are in the order of commits and without gaps: each writer waits for the one before it to commit.
CREATE TABLE change (
    number BIGINT PRIMARY KEY,
    subject TEXT NOT NULL,
    id TEXT NOT NULL,
    digest BYTEA NOT NULL
);
CREATE TABLE change_count (latest BIGINT NOT NULL);
INSERT INTO change_count (latest) VALUES (0);

CREATE FUNCTION number_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE change_count SET latest = latest + 1 RETURNING latest INTO NEW.number;
    RETURN NEW;
END;
$$;
CREATE TRIGGER change_numbered BEFORE INSERT ON change FOR EACH ROW EXECUTE FUNCTION number_change();

-- Which key secret this database's keys were made with; and a number that another database does not have.
CREATE TABLE seal (number BIGINT PRIMARY KEY CHECK (number = 1), fingerprint BYTEA NOT NULL);
CREATE TABLE birth (number BIGINT NOT NULL);
INSERT INTO birth (number) VALUES (floor(random() * 9007199254740992)::BIGINT);

CREATE TABLE usage (
    request TEXT COLLATE "C" PRIMARY KEY,
    finished_at_s DOUBLE PRECISION NOT NULL,
    tenant TEXT NOT NULL,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT,
    pool TEXT,
    priority TEXT NOT NULL,
    outcome TEXT NOT NULL,
    attempts BIGINT NOT NULL,
    spilled BIGINT NOT NULL,
    streamed BIGINT NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    cached_tokens BIGINT,
    completion_tokens BIGINT NOT NULL,
    estimated BIGINT NOT NULL,
    ttft_s DOUBLE PRECISION,
    tpot_s DOUBLE PRECISION,
    duration_s DOUBLE PRECISION NOT NULL,
    cost_nano_usd BIGINT NOT NULL,
    organization TEXT NOT NULL
);
CREATE INDEX usage_finished ON usage (finished_at_s);

CREATE TABLE usage_hour (
    hour_s BIGINT NOT NULL,
    tenant TEXT COLLATE "C" NOT NULL,
    model TEXT COLLATE "C" NOT NULL,
    pool TEXT COLLATE "C" NOT NULL,
    organization TEXT COLLATE "C" NOT NULL,
    requests BIGINT NOT NULL,
    ok BIGINT NOT NULL,
    spilled BIGINT NOT NULL,
    prompt_tokens BIGINT NOT NULL,
    cached_tokens BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    cost_nano_usd BIGINT NOT NULL,
    dispatched BIGINT NOT NULL,
    PRIMARY KEY (hour_s, tenant, model, pool, organization)
);
CREATE INDEX usage_hour_tenant ON usage_hour (tenant, hour_s, model, pool);
CREATE INDEX usage_hour_organization ON usage_hour (organization, hour_s, tenant, model, pool);
