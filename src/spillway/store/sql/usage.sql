-- name: add
INSERT INTO usage (
    request, finished_at_s, tenant, key, model, version, pool, priority, outcome, attempts, spilled, streamed,
    prompt_tokens, cached_tokens, completion_tokens, estimated, ttft_s, tpot_s, duration_s, cost_nano_usd, organization, item, repeat
) VALUES (
    :request, :finished_at_s, :tenant, :key, :model, :version, :pool, :priority, :outcome, :attempts, :spilled,
    :streamed, :prompt_tokens, :cached_tokens, :completion_tokens, :estimated, :ttft_s, :tpot_s,
    :duration_s, :cost_nano_usd, :organization, :item, :repeat
)
ON CONFLICT DO NOTHING RETURNING request;

-- name: claim_item
INSERT INTO usage_item (item, request, at_s) VALUES (:item, :request, :at_s) ON CONFLICT (item) DO NOTHING;

-- name: who_claimed
SELECT request, at_s FROM usage_item WHERE item = :item;

-- name: claimed
SELECT item FROM usage_item WHERE item >= :from AND item < :until;

-- name: forget_items
DELETE FROM usage_item WHERE item IN (SELECT item FROM usage_item WHERE at_s < :before_s ORDER BY at_s LIMIT :limit);

-- name: segment
SELECT usage_segment(:day);

-- name: add_to_hour
INSERT INTO usage_hour (
    hour_s, tenant, model, pool, organization, requests, ok, spilled, prompt_tokens, cached_tokens, completion_tokens,
    cost_nano_usd, dispatched, repeat_nano_usd
) VALUES (
    :hour_s, :tenant, :model, :pool, :organization, :requests, :ok, :spilled, :prompt_tokens, :cached_tokens,
    :completion_tokens, :cost_nano_usd, :dispatched, :repeat_nano_usd
)
ON CONFLICT (hour_s, tenant, model, pool, organization) DO UPDATE SET
    requests = usage_hour.requests + excluded.requests,
    ok = usage_hour.ok + excluded.ok,
    spilled = usage_hour.spilled + excluded.spilled,
    prompt_tokens = usage_hour.prompt_tokens + excluded.prompt_tokens,
    cached_tokens = usage_hour.cached_tokens + excluded.cached_tokens,
    completion_tokens = usage_hour.completion_tokens + excluded.completion_tokens,
    cost_nano_usd = usage_hour.cost_nano_usd + excluded.cost_nano_usd,
    dispatched = usage_hour.dispatched + excluded.dispatched,
    repeat_nano_usd = usage_hour.repeat_nano_usd + excluded.repeat_nano_usd;

-- name: record
SELECT
    request, finished_at_s, tenant, key, model, version, pool, priority, outcome, attempts, spilled, streamed,
    prompt_tokens, cached_tokens, completion_tokens, estimated, ttft_s, tpot_s, duration_s, cost_nano_usd, organization,
    item, repeat
FROM usage WHERE request = :request;

-- name: records
SELECT
    request, finished_at_s, tenant, key, model, version, pool, priority, outcome, attempts, spilled, streamed,
    prompt_tokens, cached_tokens, completion_tokens, estimated, ttft_s, tpot_s, duration_s, cost_nano_usd, organization,
    item, repeat
FROM usage
WHERE finished_at_s >= :from_s AND finished_at_s < :until_s AND (finished_at_s, request) > (:after_s, :after)
    AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant)
    AND (CAST(:organization AS TEXT) IS NULL OR organization = :organization)
ORDER BY finished_at_s, request LIMIT :limit;

-- name: hours_by_pool
SELECT
    hour_s, tenant, model, pool, CAST(sum(requests) AS BIGINT), CAST(sum(ok) AS BIGINT), CAST(sum(spilled) AS BIGINT),
    CAST(sum(prompt_tokens) AS BIGINT), CAST(sum(cached_tokens) AS BIGINT), CAST(sum(completion_tokens) AS BIGINT),
    CAST(sum(cost_nano_usd) AS BIGINT), CAST(sum(repeat_nano_usd) AS BIGINT)
FROM usage_hour
WHERE hour_s >= :from_s AND hour_s < :until_s
    AND (hour_s, tenant, model, pool) > (:after_hour_s, :after_tenant, :after_model, :after_pool)
GROUP BY hour_s, tenant, model, pool ORDER BY hour_s, tenant, model, pool LIMIT :limit;

-- name: hours_by_pool_of_tenant
SELECT
    hour_s, tenant, model, pool, CAST(sum(requests) AS BIGINT), CAST(sum(ok) AS BIGINT), CAST(sum(spilled) AS BIGINT),
    CAST(sum(prompt_tokens) AS BIGINT), CAST(sum(cached_tokens) AS BIGINT), CAST(sum(completion_tokens) AS BIGINT),
    CAST(sum(cost_nano_usd) AS BIGINT), CAST(sum(repeat_nano_usd) AS BIGINT)
FROM usage_hour
WHERE tenant = :tenant AND hour_s >= :from_s AND hour_s < :until_s
    AND (hour_s, model, pool) > (:after_hour_s, :after_model, :after_pool)
GROUP BY hour_s, tenant, model, pool ORDER BY hour_s, tenant, model, pool LIMIT :limit;

-- name: hours_by_pool_of_organization
SELECT
    hour_s, tenant, model, pool, CAST(sum(requests) AS BIGINT), CAST(sum(ok) AS BIGINT), CAST(sum(spilled) AS BIGINT),
    CAST(sum(prompt_tokens) AS BIGINT), CAST(sum(cached_tokens) AS BIGINT), CAST(sum(completion_tokens) AS BIGINT),
    CAST(sum(cost_nano_usd) AS BIGINT), CAST(sum(repeat_nano_usd) AS BIGINT)
FROM usage_hour
WHERE organization = :organization AND hour_s >= :from_s AND hour_s < :until_s
    AND (hour_s, tenant, model, pool) > (:after_hour_s, :after_tenant, :after_model, :after_pool)
GROUP BY hour_s, tenant, model, pool ORDER BY hour_s, tenant, model, pool LIMIT :limit;

-- name: hours_by_tenant
SELECT
    hour_s, tenant, '', '', CAST(sum(requests) AS BIGINT), CAST(sum(ok) AS BIGINT), CAST(sum(spilled) AS BIGINT),
    CAST(sum(prompt_tokens) AS BIGINT), CAST(sum(cached_tokens) AS BIGINT), CAST(sum(completion_tokens) AS BIGINT),
    CAST(sum(cost_nano_usd) AS BIGINT), CAST(sum(repeat_nano_usd) AS BIGINT)
FROM usage_hour
WHERE hour_s >= :from_s AND hour_s < :until_s AND (hour_s, tenant) > (:after_hour_s, :after_tenant)
GROUP BY hour_s, tenant ORDER BY hour_s, tenant LIMIT :limit;

-- name: hours_by_tenant_of_tenant
SELECT
    hour_s, tenant, '', '', CAST(sum(requests) AS BIGINT), CAST(sum(ok) AS BIGINT), CAST(sum(spilled) AS BIGINT),
    CAST(sum(prompt_tokens) AS BIGINT), CAST(sum(cached_tokens) AS BIGINT), CAST(sum(completion_tokens) AS BIGINT),
    CAST(sum(cost_nano_usd) AS BIGINT), CAST(sum(repeat_nano_usd) AS BIGINT)
FROM usage_hour
WHERE tenant = :tenant AND hour_s >= :from_s AND hour_s < :until_s AND hour_s > :after_hour_s
GROUP BY hour_s, tenant ORDER BY hour_s, tenant LIMIT :limit;

-- name: hours_by_tenant_of_organization
SELECT
    hour_s, tenant, '', '', CAST(sum(requests) AS BIGINT), CAST(sum(ok) AS BIGINT), CAST(sum(spilled) AS BIGINT),
    CAST(sum(prompt_tokens) AS BIGINT), CAST(sum(cached_tokens) AS BIGINT), CAST(sum(completion_tokens) AS BIGINT),
    CAST(sum(cost_nano_usd) AS BIGINT), CAST(sum(repeat_nano_usd) AS BIGINT)
FROM usage_hour
WHERE organization = :organization AND hour_s >= :from_s AND hour_s < :until_s
    AND (hour_s, tenant) > (:after_hour_s, :after_tenant)
GROUP BY hour_s, tenant ORDER BY hour_s, tenant LIMIT :limit;

-- name: used_by_tenant
SELECT
    CAST(coalesce(sum(dispatched), 0) AS BIGINT), CAST(coalesce(sum(prompt_tokens + completion_tokens), 0) AS BIGINT),
    CAST(coalesce(sum(cost_nano_usd), 0) AS BIGINT)
FROM usage_hour
WHERE tenant = :tenant AND hour_s >= :from_s AND hour_s < :until_s;

-- name: used_by_tenant_of_model
SELECT
    CAST(coalesce(sum(dispatched), 0) AS BIGINT), CAST(coalesce(sum(prompt_tokens + completion_tokens), 0) AS BIGINT),
    CAST(coalesce(sum(cost_nano_usd), 0) AS BIGINT)
FROM usage_hour
WHERE tenant = :tenant AND hour_s >= :from_s AND hour_s < :until_s AND model = :model;

-- name: used_by_organization
SELECT
    CAST(coalesce(sum(dispatched), 0) AS BIGINT), CAST(coalesce(sum(prompt_tokens + completion_tokens), 0) AS BIGINT),
    CAST(coalesce(sum(cost_nano_usd), 0) AS BIGINT)
FROM usage_hour
WHERE organization = :organization AND hour_s >= :from_s AND hour_s < :until_s;

-- name: used_by_organization_of_model
SELECT
    CAST(coalesce(sum(dispatched), 0) AS BIGINT), CAST(coalesce(sum(prompt_tokens + completion_tokens), 0) AS BIGINT),
    CAST(coalesce(sum(cost_nano_usd), 0) AS BIGINT)
FROM usage_hour
WHERE organization = :organization AND hour_s >= :from_s AND hour_s < :until_s AND model = :model;

-- name: drop_segments
SELECT usage_drop_segments(:before_s);

-- name: forget_records
DELETE FROM usage WHERE request IN (SELECT request FROM usage WHERE finished_at_s < :before_s ORDER BY finished_at_s LIMIT :limit);

-- name: forget_hours
DELETE FROM usage_hour WHERE (hour_s, tenant, model, pool, organization) IN (
    SELECT hour_s, tenant, model, pool, organization FROM usage_hour WHERE hour_s < :before_s ORDER BY hour_s LIMIT :limit
);
