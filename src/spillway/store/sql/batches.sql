-- name: add
INSERT INTO batch (id, tenant, state, input_file, created_at_s, expires_at_s, over_at_s, revision, worker, lease_until_s, document)
VALUES (:id, :tenant, :state, :input_file, :created_at_s, :expires_at_s, :over_at_s, :revision, '', 0, :document);

-- name: running
SELECT count(*) FROM batch WHERE tenant = :tenant AND over_at_s IS NULL;

-- name: one
SELECT document, revision FROM batch WHERE id = :id AND tenant = :tenant;

-- name: page
SELECT document, revision FROM batch
WHERE tenant = :tenant AND (created_at_s, id) < (:after_s, :after)
ORDER BY created_at_s DESC, id DESC LIMIT :limit;

-- name: sums
SELECT
    CAST(coalesce(sum(completed), 0) AS BIGINT), CAST(coalesce(sum(failed), 0) AS BIGINT),
    CAST(coalesce(sum(prompt_tokens), 0) AS BIGINT), CAST(coalesce(sum(cached_tokens), 0) AS BIGINT),
    CAST(coalesce(sum(completion_tokens), 0) AS BIGINT), CAST(coalesce(sum(cost_nano_usd), 0) AS BIGINT)
FROM batch_shard WHERE batch = :batch;

-- name: save
UPDATE batch SET
    state = :state, over_at_s = :over_at_s, revision = revision + 1, document = :document,
    lease_until_s = CASE WHEN :release = 1 THEN 0 ELSE lease_until_s END
WHERE id = :id AND revision = :revision;

-- name: lease_batch
UPDATE batch SET revision = revision + 1, worker = :worker, lease_until_s = :until_s
WHERE id = (
    SELECT id FROM batch
    WHERE over_at_s IS NULL AND lease_until_s <= :now_s AND (
        state IN ('validating', 'finalizing', 'cancelling')
        OR (state = 'in_progress' AND (
            expires_at_s <= :now_s
            OR NOT EXISTS (SELECT 1 FROM batch_shard WHERE batch_shard.batch = batch.id AND batch_shard.state = 'open')
        ))
    )
    ORDER BY created_at_s LIMIT 1 /*postgres FOR UPDATE SKIP LOCKED */
)
RETURNING document, revision;

-- name: renew_batch
UPDATE batch SET lease_until_s = :until_s WHERE id = :id AND revision = :revision;

-- name: over
SELECT id FROM batch WHERE over_at_s < :before_s ORDER BY over_at_s LIMIT :limit;

-- name: delete
DELETE FROM batch WHERE id = :id;

-- name: add_shard
INSERT INTO batch_shard (
    batch, number, tenant, state, first, lines, file_offset, size_bytes, token, worker, lease_until_s, stalls, suspect,
    suspect_tries, finished, completed, failed, prompt_tokens, cached_tokens, completion_tokens, cost_nano_usd
) VALUES (
    :batch, :number, :tenant, 'open', :first, :lines, :file_offset, :size_bytes, 0, '', 0, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0
);

-- name: shards
SELECT number, first, lines, file_offset, size_bytes FROM batch_shard WHERE batch = :batch ORDER BY number;

-- name: close_shards
UPDATE batch_shard SET state = 'closed', token = token + 1 WHERE batch = :batch AND state = 'open';

-- name: lease_shard
UPDATE batch_shard SET token = token + 1, worker = :worker, lease_until_s = :until_s, stalls = stalls + 1
WHERE (batch, number) = (
    SELECT open.batch, open.number FROM batch_shard AS open JOIN batch ON batch.id = open.batch
    WHERE open.state = 'open' AND open.lease_until_s <= :now_s AND batch.state = 'in_progress' AND batch.expires_at_s > :now_s
    ORDER BY
        CASE WHEN batch.expires_at_s < :urgent_s THEN batch.expires_at_s ELSE :urgent_s END,
        (SELECT count(*) FROM batch_shard AS taken
            WHERE taken.state = 'open' AND taken.lease_until_s > :now_s AND taken.tenant = open.tenant),
        batch.created_at_s, open.batch, open.number
    LIMIT 1 /*postgres FOR UPDATE OF open SKIP LOCKED */
)
RETURNING batch, number, first, lines, file_offset, size_bytes, token, stalls, suspect, suspect_tries;

-- name: of_shard
SELECT document, revision FROM batch WHERE id = :id;

-- name: renew_shard
UPDATE batch_shard SET lease_until_s = :until_s
WHERE batch = :batch AND number = :number AND token = :token AND state = 'open';

-- name: release_shard
UPDATE batch_shard SET lease_until_s = 0, stalls = stalls - 1, suspect = NULL, suspect_tries = 0
WHERE batch = :batch AND number = :number AND token = :token AND state = 'open';

-- name: suspect
UPDATE batch_shard SET
    suspect_tries = CASE WHEN suspect = :line THEN suspect_tries + 1 ELSE 1 END, suspect = :line
WHERE batch = :batch AND number = :number AND token = :token AND state = 'open'
RETURNING suspect_tries;

-- name: finish
UPDATE batch_shard SET
    finished = finished + :finished, completed = completed + :completed, failed = failed + :failed,
    prompt_tokens = prompt_tokens + :prompt_tokens, cached_tokens = cached_tokens + :cached_tokens,
    completion_tokens = completion_tokens + :completion_tokens, cost_nano_usd = cost_nano_usd + :cost_nano_usd, stalls = 0, suspect = NULL, suspect_tries = 0,
    state = CASE WHEN finished + :finished >= lines THEN 'done' ELSE 'open' END
WHERE batch = :batch AND number = :number AND token = :token AND state = 'open';

-- name: add_group
INSERT INTO batch_group (batch, shard, object, checksum, lines) VALUES (:batch, :shard, :object, :checksum, :lines);

-- name: groups
SELECT shard, object, checksum, lines FROM batch_group WHERE batch = :batch ORDER BY shard, object;

-- name: groups_of_shard
SELECT shard, object, checksum, lines FROM batch_group WHERE batch = :batch AND shard = :shard ORDER BY object;

-- name: forget_groups
DELETE FROM batch_group WHERE batch = :batch;

-- name: forget_shards
DELETE FROM batch_shard WHERE batch = :batch;
