-- name: server_version
-- The server's version as a number, 180000 for 18.
SELECT current_setting('server_version_num')::int;

-- name: clock
-- The server's clock.
SELECT clock_timestamp();

-- name: databases
-- Which of some databases ($1) exist.
SELECT datname FROM pg_database WHERE datname = ANY ($1::text[]);

-- name: grants_beyond
-- What service roles ($1, each with a database of its own name) may do that they must not: superpowers, and entering another's
-- database.
SELECT r.rolname || ' has superpowers' AS wrong
FROM pg_roles r
WHERE r.rolname = ANY ($1::text[]) AND (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolbypassrls)
UNION ALL
SELECT r.rolname || ' may enter ' || d.datname
FROM pg_roles r CROSS JOIN pg_database d
WHERE r.rolname = ANY ($1::text[]) AND d.datname = ANY ($1::text[]) AND r.rolname <> d.datname
    AND has_database_privilege(r.oid, d.oid, 'CONNECT')
ORDER BY wrong;

-- name: lag
-- Of one service: the age in seconds of its oldest event that a reader still owes an answer for, how many such there are,
-- and how many events of others it could not apply.
SELECT
    coalesce(extract(epoch FROM clock_timestamp() - (SELECT min(occurred_at) FROM outbox)), 0)::float8 AS oldest,
    (SELECT count(*) FROM outbox) AS waiting,
    (SELECT count(*) FROM dead_letters) AS dead;
