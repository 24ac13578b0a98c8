-- name: meet
INSERT INTO tenant (id, name, suspended, created_at_s) VALUES (:id, '', 0, :created_at_s) ON CONFLICT (id) DO NOTHING;

-- name: put
INSERT INTO tenant (id, organization, name, plan, quota, policy, suspended, created_at_s)
VALUES (:id, :organization, :name, :plan, :quota, :policy, :suspended, :created_at_s)
ON CONFLICT (id) DO UPDATE SET
    organization = excluded.organization, name = excluded.name, plan = excluded.plan, quota = excluded.quota,
    policy = excluded.policy, suspended = excluded.suspended, created_at_s = excluded.created_at_s;

-- name: row
SELECT id, organization, name, plan, quota, policy, suspended, created_at_s FROM tenant WHERE id = :id;

-- name: page
SELECT id, organization, name, plan, quota, policy, suspended, created_at_s FROM tenant
WHERE id > :after ORDER BY id LIMIT :limit;

-- name: page_of_organization
SELECT id, organization, name, plan, quota, policy, suspended, created_at_s FROM tenant
WHERE organization = :organization AND id > :after ORDER BY id LIMIT :limit;

-- name: delete
DELETE FROM tenant WHERE id = :id;

-- name: put_organization
INSERT INTO organization (id, name, plan, quota, suspended, created_at_s) VALUES (:id, :name, :plan, :quota, :suspended, :created_at_s)
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, plan = excluded.plan, quota = excluded.quota, suspended = excluded.suspended,
    created_at_s = excluded.created_at_s;

-- name: organization
SELECT id, name, plan, quota, suspended, created_at_s FROM organization WHERE id = :id;

-- name: page_of_organizations
SELECT id, name, plan, quota, suspended, created_at_s FROM organization WHERE id > :after ORDER BY id LIMIT :limit;

-- name: delete_organization
DELETE FROM organization WHERE id = :id;
