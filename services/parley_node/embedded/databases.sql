-- name: lock
-- Keep two processes from making the same role at once; held by the session.
SELECT pg_advisory_lock(hashtext('parley.ensure_databases'));

-- name: role_create
-- The statement that makes a role ($1), or no row where it exists.
SELECT format('CREATE ROLE %I LOGIN', $1::text)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = $1::text);

-- name: database_create
-- The statement that makes a database ($1) owned by the role ($2), or no row where it exists.
SELECT format('CREATE DATABASE %I OWNER %I', $1::text, $2::text)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = $1::text);

-- name: database_close
-- The statement that shuts a database ($1) to every role but its owner.
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', $1::text);
