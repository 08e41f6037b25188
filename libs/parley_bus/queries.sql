-- name: relay_step
-- Takes a step, and keeps other relays out until the transaction ends; see the function.
SELECT last, published, acked, numbered, stream_seq, event_id, envelope FROM relay_step($1, $2);

-- name: relay_advance
-- Records how far the stream has come, and deletes the rows that every reader has acknowledged.
WITH forgotten AS (DELETE FROM outbox WHERE stream_seq <= $2)
UPDATE stream_head SET published_seq = $1, acked_seq = $2;

-- name: relay_restart
-- Records that the stream is empty: all that was not acknowledged is to be published again.
UPDATE stream_head SET published_seq = acked_seq;

-- name: relay_has_work
-- Tells whether anything waits to be numbered or published.
SELECT published_seq < last_seq OR EXISTS (SELECT FROM outbox WHERE stream_seq IS NULL) FROM stream_head;

-- name: dead_insert
-- Sets an event aside that could not be applied.
INSERT INTO dead_letters (reader, stream, seq, envelope, error_type) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (reader, stream, seq) DO NOTHING;

-- name: dead_asked
-- Reads the places of those among a reader's dead letters of one stream that the operator asks for again, in order.
SELECT seq FROM dead_letters WHERE reader = $1 AND stream = $2 AND replay_asked ORDER BY seq;

-- name: dead_take
-- Takes a dead letter out; answers nothing if somebody else did.
DELETE FROM dead_letters WHERE reader = $1 AND stream = $2 AND seq = $3 RETURNING envelope;

-- name: dead_again
-- Notes what a replay failed with.
UPDATE dead_letters SET error_type = $4, replay_asked = false WHERE reader = $1 AND stream = $2 AND seq = $3;
