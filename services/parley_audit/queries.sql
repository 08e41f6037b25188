-- name: log_open
-- Make the log's rows, unless they are there.
WITH head AS (INSERT INTO log_head (origin, size, frontier) VALUES ($1, 0, $2) ON CONFLICT DO NOTHING RETURNING origin)
INSERT INTO log_checkpoint (origin) SELECT origin FROM head;

-- name: head_find
-- Read where the log ends.
SELECT size, frontier FROM log_head WHERE origin = $1;

-- name: head_lock
-- Keep other writers out until the transaction ends, and read where the log ends.
SELECT size, frontier FROM log_head WHERE origin = $1 FOR UPDATE;

-- name: log_append
-- Append an entry and tell where its commitments are, if the log ends where its writer takes it to; answers nothing, and appends
-- nothing, if it ends elsewhere. Tiles are new, or wider than before. One statement: until the transaction ends, others wait.
WITH moved AS (
    UPDATE log_head SET size = $3, frontier = $4 WHERE origin = $1 AND size = $2 RETURNING size
), entered AS (
    INSERT INTO log_entries (log_index, entry) SELECT $2, $5 FROM moved
), put AS (
    INSERT INTO log_tiles (level, tile_index, hashes)
    SELECT t.* FROM moved, unnest($6::smallint[], $7::bigint[], $8::bytea[]) AS t
    ON CONFLICT (level, tile_index) DO UPDATE SET hashes = excluded.hashes
), placed AS (
    INSERT INTO log_commitments (commitment, log_index, inner_index, inner_size, path)
    SELECT c.commitment, $2, c.inner_index, c.inner_size, c.path
    FROM moved, unnest($9::bytea[], $10::integer[], $11::integer[], $12::bytea[]) AS c (commitment, inner_index, inner_size, path)
)
SELECT true FROM moved;

-- name: checkpoint_find
-- Read the newest signed checkpoint.
SELECT size, note FROM log_checkpoint WHERE origin = $1;

-- name: checkpoint_lock
-- Keep other signers out until the transaction ends, and read the newest signed checkpoint.
SELECT size, note FROM log_checkpoint WHERE origin = $1 FOR UPDATE;

-- name: checkpoint_publish
-- Serve a checkpoint from now on.
UPDATE log_checkpoint SET size = $2, note = $3 WHERE origin = $1 AND size <= $2;

-- name: entries_between
-- Read the entries from one index up to another, in order.
SELECT entry FROM log_entries WHERE log_index >= $1 AND log_index < $2 ORDER BY log_index;

-- name: entries_under
-- Read the entries under tiles of the lowest level, in order; null where there are none.
SELECT t.tile_index, (
    SELECT array_agg(e.entry ORDER BY e.log_index) FROM log_entries AS e
    WHERE e.log_index >= t.tile_index * 256 AND e.log_index < (t.tile_index + 1) * 256
) AS entries
FROM unnest($1::bigint[]) AS t (tile_index);

-- name: tiles_find
-- Read tiles, each as wide as it is.
SELECT level, tile_index, hashes FROM log_tiles
WHERE (level, tile_index) IN (SELECT * FROM unnest($1::smallint[], $2::bigint[]));

-- name: commitments_known
-- Tell which of some commitments are in the log already.
SELECT commitment FROM log_commitments WHERE commitment = ANY($1::bytea[]);

-- name: commitment_find
-- Read where one commitment is, with its entry.
SELECT c.log_index, c.inner_index, c.inner_size, c.path, e.entry
FROM log_commitments AS c JOIN log_entries AS e USING (log_index) WHERE c.commitment = $1;

-- name: keys_find
-- Read the keys of some subjects.
SELECT subject, key_id, wrapped FROM subject_keys WHERE subject = ANY($1::text[]);

-- name: key_any
-- Any subject, with its wrapped key.
SELECT subject, key_id, wrapped FROM subject_keys WHERE subject > '' ORDER BY subject LIMIT 1;

-- name: keys_insert
-- Give keys to subjects that have none, and tell to whom; who is given one by somebody else is waited for.
INSERT INTO subject_keys (subject, key_id, wrapped) SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[])
ON CONFLICT (subject) DO NOTHING RETURNING subject;

-- name: history_insert
-- Add to histories.
INSERT INTO history (subject, occurred_at, commitment, key_id, sealed)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::bytea[], $4::bigint[], $5::bytea[])
ON CONFLICT DO NOTHING;

-- name: history_page
-- Read what is in the log of a subject's history, and opened by their present key, newest first.
SELECT h.occurred_at, h.commitment, c.log_index, h.sealed FROM history AS h JOIN log_commitments AS c USING (commitment)
WHERE h.subject = $1 AND h.key_id = $2 AND (NOT $3::boolean OR (h.occurred_at, h.commitment) < ($4::timestamptz, $5::bytea))
ORDER BY h.occurred_at DESC, h.commitment DESC LIMIT $6;

-- name: waiting_insert
-- Have an event wait for the log's next tick.
INSERT INTO waiting (service, seq, commitments) VALUES ($1, $2, $3);

-- name: waiting_take
-- Take the events that have waited longest, as many as have so many commitments together, and one at least.
WITH longest AS (SELECT id, size FROM waiting ORDER BY id LIMIT $1),
summed AS (SELECT id, size, sum(size) OVER (ORDER BY id) AS up_to FROM longest)
DELETE FROM waiting AS w USING summed AS s WHERE w.id = s.id AND (s.up_to <= $1 OR s.up_to = s.size)
RETURNING w.service, w.seq, w.commitments;

-- name: waiting_length
-- Tell how many events wait, or a few more: gaps count, too.
SELECT coalesce(max(id) - min(id) + 1, 0) FROM waiting;

-- name: progress_find
-- Read how far a stream is in the log.
SELECT logged_seq, ahead FROM stream_progress WHERE service = $1;

-- name: progress_set
-- Note how far a stream is in the log.
INSERT INTO stream_progress (service, logged_seq, ahead) VALUES ($1, $2, $3)
ON CONFLICT (service) DO UPDATE SET logged_seq = excluded.logged_seq, ahead = excluded.ahead;
