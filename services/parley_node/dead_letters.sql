-- name: letters
-- Reads what is set aside in one service's database, oldest first.
SELECT reader, stream, seq, envelope, error_type, died_at FROM dead_letters ORDER BY died_at, stream, seq;

-- name: ask
-- Asks the readers to try again everything that is set aside; answers the places.
UPDATE dead_letters SET replay_asked = true RETURNING reader, stream, seq;

-- name: unanswered
-- Counts those among some places ($1 readers, $2 streams, $3 numbers) that nobody has tried yet, and those that failed again.
SELECT
    count(*) FILTER (WHERE replay_asked) AS waiting,
    count(*) FILTER (WHERE NOT replay_asked) AS failed
FROM dead_letters
JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS place (reader, stream, seq) USING (reader, stream, seq);
