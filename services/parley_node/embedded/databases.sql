-- name: lock
-- Keep two processes from making the same role at once; held by the session.
SELECT pg_advisory_lock(hashtext('parley.ensure_databases'));

-- name: role_create
-- The statement that makes a role ($1), or no row where it exists.
SELECT format('CREATE ROLE %I LOGIN', $1::text)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = $1::text);

-- name: role_password
-- The statement that gives a role ($1) a password, by what checks it ($2).
SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text);

-- name: role_of_another
-- A role of these ($1) that says another owner than this one ($2), if any does. Owners are told by how they begin ($3).
SELECT rolname FROM pg_roles
WHERE rolname = ANY ($1::text[]) AND starts_with(shobj_description(oid, 'pg_authid'), $3::text)
    AND shobj_description(oid, 'pg_authid') <> $2::text
LIMIT 1;

-- name: role_owner
-- The statement that says whose a role ($1) is ($2).
SELECT format('COMMENT ON ROLE %I IS %L', $1::text, $2::text);

-- name: database_create
-- The statement that makes a database ($1), the administrator's, or no row where it exists.
SELECT format('CREATE DATABASE %I', $1::text)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = $1::text);

-- name: database_close
-- The statement that shuts a database ($1) to every role but its owner, and those who are let in by name.
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', $1::text);

-- name: beyond
-- The statements that take from roles ($1, each with a database of its own name) what none of them may have: superpowers, what
-- members of other roles may do, and each other's databases.
SELECT format('ALTER ROLE %I NOSUPERUSER NOCREATEROLE NOCREATEDB NOBYPASSRLS NOREPLICATION', rolname) AS statement
FROM pg_roles
WHERE rolname = ANY ($1::text[]) AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication)
UNION ALL
SELECT format('REVOKE %I FROM %I', g.rolname, r.rolname)
FROM pg_auth_members AS m JOIN pg_roles AS g ON g.oid = m.roleid JOIN pg_roles AS r ON r.oid = m.member
WHERE r.rolname = ANY ($1::text[])
UNION ALL
SELECT DISTINCT format('REVOKE ALL ON DATABASE %I FROM %I', d.datname, r.rolname)
FROM pg_database AS d CROSS JOIN aclexplode(d.datacl) AS a JOIN pg_roles AS r ON r.oid = a.grantee
WHERE r.rolname = ANY ($1::text[]) AND d.datname = ANY ($1::text[]) AND r.rolname <> d.datname AND r.oid <> d.datdba
ORDER BY statement;

-- name: grants_lock
-- Keep two processes from granting at once; held by the transaction.
SELECT pg_advisory_xact_lock(hashtext('parley.settle_grants'));

-- name: reassign
-- The statement that makes the administrator the owner of what a role ($1) owns, this database included; no row where it owns
-- nothing here.
SELECT format('REASSIGN OWNED BY %I TO CURRENT_USER', $1::text)
WHERE EXISTS (
    SELECT FROM pg_roles AS r
    WHERE r.rolname = $1::text AND (
        EXISTS (SELECT FROM pg_class WHERE relowner = r.oid)
        OR EXISTS (SELECT FROM pg_database WHERE datdba = r.oid AND datname = current_database())));

-- name: grants
-- The statements between what a role ($1) may do here and what it should: connect, and the privileges ($3) on the tables ($2)
-- of the same place. What everybody may do, and what may be done to a column, counts. None where all is as it should be.
WITH who AS (
    SELECT oid, format('%I', rolname) AS name FROM pg_roles WHERE rolname = $1::text
    UNION ALL
    SELECT 0, 'PUBLIC'
), wanted AS (
    SELECT format('ON TABLE %I', w.relation) AS object, w.privilege, format('%I', $1::text) AS name
    FROM unnest($2::text[], $3::text[]) AS w (relation, privilege)
    JOIN pg_class AS c ON c.relname = w.relation AND c.relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('ON DATABASE %I', current_database()), 'CONNECT', format('%I', $1::text)
), granted AS (
    SELECT format(CASE relkind WHEN 'S' THEN 'ON SEQUENCE %I' ELSE 'ON TABLE %I' END, relname) AS object, NULL AS part,
        coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)) AS acl
    FROM pg_class AS c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
        AND NOT EXISTS (  -- what an extension brought, which is its own to grant
            SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
    UNION ALL
    SELECT format('ON TABLE %I', c.relname), format(' (%I)', a.attname), a.attacl
    FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'public'::regnamespace AND a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT format('ON DATABASE %I', datname), NULL, coalesce(datacl, acldefault('d', datdba))
    FROM pg_database WHERE datname = current_database()
    UNION ALL
    SELECT 'ON SCHEMA public', NULL, nspacl FROM pg_namespace WHERE oid = 'public'::regnamespace
), held AS (
    SELECT g.object, a.privilege_type || coalesce(g.part, '') AS privilege, who.name
    FROM granted AS g CROSS JOIN aclexplode(g.acl) AS a JOIN who ON who.oid = a.grantee
    WHERE (g.object, a.privilege_type) <> ('ON SCHEMA public', 'USAGE')  -- everybody's, or no table could be named
)
SELECT format('REVOKE %s %s FROM %s', privilege, object, name) AS statement
FROM (SELECT object, privilege, name FROM held EXCEPT SELECT object, privilege, name FROM wanted) AS beyond
UNION ALL
SELECT format('GRANT %s %s TO %s', privilege, object, name)
FROM (SELECT object, privilege, name FROM wanted EXCEPT SELECT object, privilege, name FROM held) AS missing
ORDER BY statement;
