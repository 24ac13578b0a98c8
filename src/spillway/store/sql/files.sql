-- name: add
INSERT INTO file (id, tenant, organization, purpose, filename, size_bytes, created_at_s, expires_at_s)
VALUES (:id, :tenant, :organization, :purpose, :filename, :size_bytes, :created_at_s, :expires_at_s);

-- name: put
INSERT INTO file (id, tenant, organization, purpose, filename, size_bytes, created_at_s, expires_at_s)
VALUES (:id, :tenant, :organization, :purpose, :filename, :size_bytes, :created_at_s, :expires_at_s)
ON CONFLICT (id) DO UPDATE SET size_bytes = excluded.size_bytes, created_at_s = excluded.created_at_s, expires_at_s = excluded.expires_at_s;

-- name: one
SELECT id, tenant, organization, purpose, filename, size_bytes, created_at_s, expires_at_s FROM file
WHERE id = :id AND tenant = :tenant;

-- name: page_down
SELECT id, tenant, organization, purpose, filename, size_bytes, created_at_s, expires_at_s FROM file
WHERE tenant = :tenant AND (created_at_s, id) < (:after_s, :after) AND (CAST(:purpose AS TEXT) IS NULL OR purpose = :purpose)
ORDER BY created_at_s DESC, id DESC LIMIT :limit;

-- name: page_up
SELECT id, tenant, organization, purpose, filename, size_bytes, created_at_s, expires_at_s FROM file
WHERE tenant = :tenant AND (created_at_s, id) > (:after_s, :after) AND (CAST(:purpose AS TEXT) IS NULL OR purpose = :purpose)
ORDER BY created_at_s, id LIMIT :limit;

-- name: is_read
SELECT 1 FROM batch WHERE input_file = :id AND over_at_s IS NULL LIMIT 1;

-- name: delete
DELETE FROM file WHERE id = :id AND tenant = :tenant;

-- name: stored
SELECT count(*), CAST(coalesce(sum(size_bytes), 0) AS BIGINT) FROM file WHERE tenant = :tenant;

-- name: expired
SELECT id, tenant, organization, purpose, filename, size_bytes, created_at_s, expires_at_s FROM file
WHERE expires_at_s <= :now_s
    AND NOT EXISTS (SELECT 1 FROM batch WHERE batch.input_file = file.id AND batch.over_at_s IS NULL)
ORDER BY expires_at_s LIMIT :limit;
