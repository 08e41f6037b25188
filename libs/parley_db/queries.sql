-- name: ping
-- A sign of life.
SELECT 1;

-- name: outbox_append
-- Adds events in the order given.
INSERT INTO outbox (event_id, type, envelope)
SELECT event_id, type, envelope
FROM unnest($1::uuid[], $2::text[], $3::bytea[]) WITH ORDINALITY AS e (event_id, type, envelope, place)
ORDER BY place;

-- name: inbox_claim
-- Marks events as taken in and answers those that were new; in one order always, so that two claims can't deadlock.
INSERT INTO inbox (event_id)
SELECT DISTINCT event_id FROM unnest($1::uuid[]) AS e (event_id) ORDER BY event_id
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id;

-- name: inbox_purge
-- Forgets so many events taken in longer ago than an interval, the oldest. By the statement's own time, which stands still: no index is
-- searched for one that runs.
DELETE FROM inbox WHERE event_id = ANY (ARRAY(
    SELECT event_id FROM inbox WHERE received_at < statement_timestamp() - $1::interval ORDER BY received_at LIMIT $2));

-- name: request_claim
-- Takes a request id, waiting for whoever is taking it just now; answers nothing if it was taken before.
INSERT INTO requests (caller, method, request_id, fingerprint)
VALUES ($1, $2, $3, $4)
ON CONFLICT (caller, method, request_id) DO NOTHING
RETURNING true;

-- name: request_answer
-- Stores the response of a claimed request id.
UPDATE requests SET response = $4 WHERE caller = $1 AND method = $2 AND request_id = $3;

-- name: request_find
-- Reads what a request id was used for, and its response.
SELECT fingerprint, response FROM requests WHERE caller = $1 AND method = $2 AND request_id = $3;

-- name: request_purge
-- Forgets request ids older than an interval, by the statement's own time, as above.
DELETE FROM requests WHERE created_at < statement_timestamp() - $1::interval;

-- name: migration_patience
-- How long what follows in the transaction waits for each lock.
SELECT set_config('lock_timeout', $1, true);

-- name: migration_lock
-- Waits for other migrations of this database to end: one key for all sets, as they share tables.
SELECT pg_advisory_xact_lock(7309940824);

-- name: migration_table
-- Makes the list of applied migrations.
CREATE TABLE IF NOT EXISTS schema_migrations (
    set_name text NOT NULL,
    version integer NOT NULL,
    name text NOT NULL,
    phase text NOT NULL CHECK (phase IN ('pre', 'post')),
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (set_name, version, phase)
);

-- name: migration_table_exists
-- Tells whether this database has ever been migrated.
SELECT to_regclass('schema_migrations') IS NOT NULL;

-- name: migration_list
-- Reads the applied migrations of a set.
SELECT version, name, phase, checksum FROM schema_migrations WHERE set_name = $1;

-- name: migration_insert
-- Records a migration as applied.
INSERT INTO schema_migrations (set_name, version, name, phase, checksum) VALUES ($1, $2, $3, $4, $5);

-- name: pulse_oldest
-- Tells how many seconds the oldest event has waited to be published and acknowledged by all; 0 if none waits.
SELECT coalesce(
    (SELECT extract(epoch FROM clock_timestamp() - occurred_at) FROM outbox ORDER BY id LIMIT 1), 0
)::float8;

-- name: pulse_dead
-- Counts the events that were set aside, by reader and stream.
SELECT reader, stream, count(*) AS letters FROM dead_letters GROUP BY reader, stream;
