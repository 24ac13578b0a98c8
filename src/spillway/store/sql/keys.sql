-- name: add
INSERT INTO key (id, digest, tenant, name, models, highest_priority, created_at_s, expires_at_s, revoked_at_s, last4)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: page
SELECT id, digest, tenant, name, models, highest_priority, created_at_s, expires_at_s, revoked_at_s, last4
FROM key WHERE id > :after ORDER BY id LIMIT :limit;

-- name: page_of_tenant
SELECT id, digest, tenant, name, models, highest_priority, created_at_s, expires_at_s, revoked_at_s, last4
FROM key WHERE tenant = :tenant AND id > :after ORDER BY id LIMIT :limit;

-- name: live
SELECT id, digest, tenant, name, models, highest_priority, created_at_s, expires_at_s, revoked_at_s, last4
FROM key WHERE revoked_at_s IS NULL AND (expires_at_s IS NULL OR expires_at_s > :now_s) ORDER BY id;

-- name: revoke
UPDATE key SET revoked_at_s = :at_s WHERE id = :id AND revoked_at_s IS NULL;

-- name: exists
SELECT 1 FROM key WHERE id = :id;

-- name: changes
SELECT changes FROM key_revision;
