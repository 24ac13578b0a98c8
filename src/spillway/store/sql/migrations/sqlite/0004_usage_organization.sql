-- Roll-ups know the organization, and how many requests reached an upstream: that is what counts against a limit of requests.
CREATE TABLE usage_hour_of_organization (
    hour_s INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    model TEXT NOT NULL,
    pool TEXT NOT NULL,
    organization TEXT NOT NULL,
    requests INTEGER NOT NULL,
    ok INTEGER NOT NULL,
    spilled INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost_nano_usd INTEGER NOT NULL,
    dispatched INTEGER NOT NULL,
    PRIMARY KEY (hour_s, tenant, model, pool, organization)
) WITHOUT ROWID;

INSERT INTO usage_hour_of_organization
SELECT
    hour_s, tenant, model, pool, '', requests, ok, spilled, prompt_tokens, cached_tokens, completion_tokens, cost_nano_usd, ok
FROM usage_hour;

DROP TABLE usage_hour;
ALTER TABLE usage_hour_of_organization RENAME TO usage_hour;

CREATE INDEX usage_hour_tenant ON usage_hour (tenant, hour_s, model, pool);
CREATE INDEX usage_hour_organization ON usage_hour (organization, hour_s, tenant, model, pool);
