-- name: note
INSERT INTO audit (at_s, actor, action, target, organization, before, after)
VALUES (:at_s, :actor, :action, :target, :organization, :before, :after);

-- name: audits
SELECT number, at_s, actor, action, target, organization, before, after FROM audit
WHERE number < :before AND (CAST(:organization AS TEXT) IS NULL OR organization = :organization) AND (CAST(:target AS TEXT) IS NULL OR target = :target)
ORDER BY number DESC LIMIT :limit;

-- name: tell
INSERT INTO change (subject, id, digest) VALUES (:subject, :id, :digest);

-- name: latest
SELECT coalesce(max(number), 0) FROM change;

-- name: since
SELECT number, subject, id, digest FROM change WHERE number > :number ORDER BY number LIMIT :limit;

-- name: forget
DELETE FROM change WHERE number <= (SELECT max(number) FROM change) - :keep;

-- name: first_seal
INSERT INTO seal (number, fingerprint) VALUES (1, :fingerprint) ON CONFLICT (number) DO NOTHING;

-- name: seal
SELECT fingerprint FROM seal;
