-- name: add
INSERT INTO key (
    id, digest, tenant, name, models, highest_priority, created_at_s, expires_at_s, revoked_at_s, last4, policy, networks, successor
) VALUES (
    :id, :digest, :tenant, :name, :models, :highest_priority, :created_at_s, :expires_at_s, :revoked_at_s,
    :last4, :policy, :networks, :successor
);

-- name: change
UPDATE key SET
    tenant = :tenant, name = :name, models = :models, highest_priority = :highest_priority, expires_at_s = :expires_at_s,
    revoked_at_s = :revoked_at_s, policy = :policy, networks = :networks, successor = :successor
WHERE id = :id;

-- name: row
SELECT
    id, digest, tenant, name, models, highest_priority, created_at_s, expires_at_s, revoked_at_s, last4, policy, networks, successor
FROM key WHERE id = :id;

-- name: page
SELECT
    id, digest, tenant, name, models, highest_priority, created_at_s, expires_at_s, revoked_at_s, last4, policy, networks, successor
FROM key WHERE id > :after ORDER BY id LIMIT :limit;

-- name: page_of_tenant
SELECT
    id, digest, tenant, name, models, highest_priority, created_at_s, expires_at_s, revoked_at_s, last4, policy, networks, successor
FROM key WHERE tenant = :tenant AND id > :after ORDER BY id LIMIT :limit;

-- name: page_of_organization
SELECT
    id, digest, tenant, name, models, highest_priority, created_at_s, expires_at_s, revoked_at_s, last4, policy, networks, successor
FROM key
WHERE tenant IN (SELECT tenant.id FROM tenant WHERE organization = :organization) AND (CAST(:tenant AS TEXT) IS NULL OR tenant = :tenant) AND id > :after
ORDER BY id LIMIT :limit;

-- name: revoke_of_tenant
UPDATE key SET revoked_at_s = :at_s WHERE tenant = :tenant AND revoked_at_s IS NULL;

-- name: identities
SELECT
    key.id, key.digest, key.tenant, key.name, key.models, key.highest_priority, key.created_at_s, key.expires_at_s, key.revoked_at_s,
    key.last4, key.policy, key.networks, key.successor,
    tenant.id, tenant.organization, tenant.name, tenant.plan, tenant.quota, tenant.policy, tenant.suspended, tenant.created_at_s,
    organization.id, organization.name, organization.plan, organization.quota, organization.suspended, organization.created_at_s
FROM key
LEFT JOIN tenant ON tenant.id = key.tenant
LEFT JOIN organization ON organization.id = tenant.organization
WHERE key.digest IN (:digests);
