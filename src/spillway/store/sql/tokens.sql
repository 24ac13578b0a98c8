-- name: add
INSERT INTO token (id, digest, name, role, organization, created_at_s, expires_at_s, revoked_at_s, last4)
VALUES (:id, :digest, :name, :role, :organization, :created_at_s, :expires_at_s, :revoked_at_s, :last4);

-- name: row
SELECT id, digest, name, role, organization, created_at_s, expires_at_s, revoked_at_s, last4 FROM token WHERE id = :id;

-- name: with_digest
SELECT id, digest, name, role, organization, created_at_s, expires_at_s, revoked_at_s, last4 FROM token WHERE digest = :digest;

-- name: page
SELECT id, digest, name, role, organization, created_at_s, expires_at_s, revoked_at_s, last4 FROM token
WHERE id > :after AND (CAST(:organization AS TEXT) IS NULL OR organization = :organization) ORDER BY id LIMIT :limit;

-- name: revoke
UPDATE token SET revoked_at_s = :at_s WHERE id = :id AND revoked_at_s IS NULL;

-- name: begin
INSERT INTO answer (id, fingerprint, at_s) VALUES (:id, :fingerprint, :at_s) ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: begin_again
UPDATE answer SET fingerprint = :fingerprint, at_s = :at_s WHERE id = :id AND status IS NULL AND at_s < :stale_s RETURNING id;

-- name: answered
SELECT fingerprint, status, body FROM answer WHERE id = :id;

-- name: finish
UPDATE answer SET status = :status, body = :body WHERE id = :id;

-- name: give_up
DELETE FROM answer WHERE id = :id AND status IS NULL;

-- name: forget
DELETE FROM answer WHERE id IN (SELECT id FROM answer WHERE at_s < :before_s ORDER BY at_s LIMIT 1000);
