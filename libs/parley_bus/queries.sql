-- name: relay_lock
-- Keeps other relays of this database out until the transaction ends, and reads how far the stream has come.
SELECT last_seq AS last, published_seq AS published, acked_seq AS acked FROM stream_head FOR UPDATE;

-- name: relay_unpublished
-- Reads the next rows to publish, in order.
SELECT stream_seq, event_id, envelope FROM outbox WHERE stream_seq > $1 ORDER BY stream_seq LIMIT $2;

-- name: relay_number
-- Gives the rows that have none their places after $1; in any order of commits, so that a slow transaction is not skipped.
WITH unnumbered AS MATERIALIZED (
    SELECT id, row_number() OVER (ORDER BY id) AS place
    FROM (SELECT id FROM outbox WHERE stream_seq IS NULL ORDER BY id LIMIT $2) AS oldest
)
UPDATE outbox SET stream_seq = $1::bigint + place FROM unnumbered WHERE outbox.id = unnumbered.id;

-- name: relay_advance
-- Records how far the stream has come.
UPDATE stream_head SET last_seq = $1, published_seq = $2, acked_seq = $3;

-- name: relay_forget
-- Deletes the rows that every reader has acknowledged.
DELETE FROM outbox WHERE stream_seq <= $1;

-- name: relay_has_work
-- Tells whether anything waits to be numbered or published.
SELECT published_seq < last_seq OR EXISTS (SELECT FROM outbox WHERE stream_seq IS NULL) FROM stream_head;

-- name: relay_oldest_age
-- Tells how many seconds the oldest row has waited to be published and acknowledged.
SELECT extract(epoch FROM clock_timestamp() - occurred_at)::float8 FROM outbox ORDER BY id LIMIT 1;

-- name: dead_insert
-- Sets an event aside that could not be applied.
INSERT INTO dead_letters (reader, stream, seq, envelope, error_type) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (reader, stream, seq) DO NOTHING;

-- name: dead_list
-- Reads the places of a reader's dead letters of one stream, in order.
SELECT seq FROM dead_letters WHERE reader = $1 AND stream = $2 ORDER BY seq;

-- name: dead_take
-- Takes a dead letter out; answers nothing if somebody else did.
DELETE FROM dead_letters WHERE reader = $1 AND stream = $2 AND seq = $3 RETURNING envelope;

-- name: dead_again
-- Notes what a replay failed with.
UPDATE dead_letters SET error_type = $4 WHERE reader = $1 AND stream = $2 AND seq = $3;
