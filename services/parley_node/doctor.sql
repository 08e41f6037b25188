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
-- What service roles ($1, each with a database of its own name) may do that they must not: superpowers, what members of other
-- roles may do, and entering another's database.
SELECT r.rolname || ' has superpowers' AS wrong
FROM pg_roles r
WHERE r.rolname = ANY ($1::text[]) AND (
    r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolbypassrls OR r.rolreplication)
UNION ALL
SELECT r.rolname || ' is a member of ' || g.rolname
FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
WHERE r.rolname = ANY ($1::text[])
UNION ALL
SELECT r.rolname || ' may enter ' || d.datname
FROM pg_roles r CROSS JOIN pg_database d
WHERE r.rolname = ANY ($1::text[]) AND d.datname = ANY ($1::text[]) AND r.rolname <> d.datname
    AND has_database_privilege(r.oid, d.oid, 'CONNECT')
ORDER BY wrong;

-- name: backlog
-- Of one service, whose role is $1: the age in seconds of its oldest event that a reader still owes an answer for, how many such
-- there are, the age of the oldest that is not even published, a session other than the service's own that holds the relay's lock,
-- and how many events of others are set aside.
SELECT
    coalesce(extract(epoch FROM clock_timestamp() - (SELECT min(occurred_at) FROM outbox)), 0)::float8 AS oldest,
    (SELECT count(*) FROM outbox) AS waiting,
    coalesce(extract(epoch FROM clock_timestamp() - (
        SELECT min(occurred_at) FROM outbox, stream_head WHERE stream_seq IS NULL OR stream_seq > published_seq
    )), 0)::float8 AS unpublished,
    (
        SELECT l.pid
        FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
        WHERE l.relation = 'stream_head'::regclass AND l.mode IN ('RowShareLock', 'RowExclusiveLock', 'AccessExclusiveLock')
            AND l.granted AND a.usename <> $1 AND a.pid <> pg_backend_pid()
        LIMIT 1
    ) AS holder,
    (SELECT count(*) FROM dead_letters) AS dead;

-- name: unread
-- The oldest events that are published and not acknowledged by all, in the order of the stream.
SELECT event_id, type FROM outbox WHERE stream_seq IS NOT NULL ORDER BY stream_seq LIMIT 1000;

-- name: not_applied
-- Which of some events ($1) a reader has not taken in.
SELECT event_id FROM unnest($1::uuid[]) AS e (event_id) WHERE NOT EXISTS (SELECT FROM inbox WHERE inbox.event_id = e.event_id);
