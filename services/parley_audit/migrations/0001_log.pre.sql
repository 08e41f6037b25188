-- The log, what opens it, and how far each stream has come.

CREATE TABLE log_head (
    origin text PRIMARY KEY,
    size bigint NOT NULL CHECK (size >= 0),
    frontier bytea NOT NULL,
    one boolean NOT NULL DEFAULT true UNIQUE CHECK (one)
) WITH (fillfactor = 10);
COMMENT ON TABLE log_head IS
    'One row: the log''s end. Whoever appends holds its lock, and moves it only from the size it appended to.';
COMMENT ON COLUMN log_head.origin IS 'The log''s name, as in its checkpoints. Immutable.';
COMMENT ON COLUMN log_head.size IS 'How many entries the log has. Only grows.';
COMMENT ON COLUMN log_head.frontier IS 'Roots of the complete subtrees, largest first, behind the size as u64. Mutable.';
COMMENT ON COLUMN log_head.one IS 'Always true: there is one row. Immutable.';

CREATE TABLE log_checkpoint (
    origin text PRIMARY KEY REFERENCES log_head,
    size bigint NOT NULL DEFAULT 0 CHECK (size >= 0),
    note bytea
) WITH (fillfactor = 10);
COMMENT ON TABLE log_checkpoint IS 'One row: the newest signed checkpoint. Whoever signs holds its lock.';
COMMENT ON COLUMN log_checkpoint.origin IS 'The log''s name. Immutable.';
COMMENT ON COLUMN log_checkpoint.size IS 'How many entries it covers. Only grows.';
COMMENT ON COLUMN log_checkpoint.note IS 'The signed note; null until there is one. Mutable.';

CREATE TABLE log_entries (
    log_index bigint PRIMARY KEY CHECK (log_index >= 0),
    entry bytea NOT NULL
);
COMMENT ON TABLE log_entries IS 'The entries of the log. Public.';
COMMENT ON COLUMN log_entries.log_index IS 'Place in the log, from 0 without gaps. Immutable.';
COMMENT ON COLUMN log_entries.entry IS 'The exact bytes whose hash is the leaf: a version and an inner root. Immutable.';

CREATE TABLE log_tiles (
    level smallint NOT NULL,
    tile_index bigint NOT NULL,
    hashes bytea NOT NULL,
    PRIMARY KEY (level, tile_index)
);
-- Hashes don't compress; trying would be paid at every append.
ALTER TABLE log_tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;
COMMENT ON TABLE log_tiles IS 'The tiles of the log (c2sp.org/tlog-tiles), each as wide as it is so far. Public.';
COMMENT ON COLUMN log_tiles.level IS '0 for hashes of leaves; above, for roots of full tiles of the level below. Immutable.';
COMMENT ON COLUMN log_tiles.tile_index IS 'Place in the level, from 0. Immutable.';
COMMENT ON COLUMN log_tiles.hashes IS 'Up to 256 hashes of 32 bytes. Only grows at its end.';

CREATE TABLE log_commitments (
    commitment bytea PRIMARY KEY,
    log_index bigint NOT NULL,
    inner_index integer NOT NULL,
    inner_size integer NOT NULL,
    path bytea NOT NULL
);
COMMENT ON TABLE log_commitments IS 'Where each commitment is in the log. It names nobody, and outlives every erasure.';
COMMENT ON COLUMN log_commitments.commitment IS 'SHA-256 of salt and detail. Immutable.';
COMMENT ON COLUMN log_commitments.log_index IS 'The entry that commits to it. Immutable.';
COMMENT ON COLUMN log_commitments.inner_index IS 'Its place among the entry''s commitments. Immutable.';
COMMENT ON COLUMN log_commitments.inner_size IS
    'The smallest number of commitments that its path fits; it says no more of the true one than the path. Immutable.';
COMMENT ON COLUMN log_commitments.path IS 'Hashes from the commitment to the entry''s inner root. Immutable.';

CREATE TABLE subject_keys (
    subject text PRIMARY KEY,
    key_id bigint NOT NULL,
    wrapped bytea NOT NULL
);
COMMENT ON TABLE subject_keys IS 'One key a customer, for the openings in their history. Deleting the row erases them all.';
COMMENT ON COLUMN subject_keys.subject IS 'This service''s id for the customer; ''system'' where there is none. Immutable.';
COMMENT ON COLUMN subject_keys.key_id IS 'Tells this key from one that was erased before. Immutable.';
COMMENT ON COLUMN subject_keys.wrapped IS 'The key, encrypted by the master key for this subject. Mutable: rewrapped.';

CREATE TABLE history (
    subject text NOT NULL,
    occurred_at timestamptz NOT NULL,
    commitment bytea NOT NULL,
    key_id bigint NOT NULL,
    log_index bigint NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (subject, occurred_at, commitment)
);
COMMENT ON TABLE history IS 'What happened to each customer, readable with their key alone.';
COMMENT ON COLUMN history.subject IS 'Whose history. Immutable.';
COMMENT ON COLUMN history.occurred_at IS 'When it happened, by its writer''s clock. Immutable.';
COMMENT ON COLUMN history.commitment IS 'What the log holds of it. Immutable.';
COMMENT ON COLUMN history.key_id IS 'The subject''s key that it was encrypted under. Immutable.';
COMMENT ON COLUMN history.log_index IS 'The entry that commits to it. Immutable.';
COMMENT ON COLUMN history.sealed IS 'Salt and detail, encrypted for (history, subject, commitment). Immutable.';

CREATE TABLE stream_progress (
    service text PRIMARY KEY,
    logged_seq bigint NOT NULL,
    ahead bigint[] NOT NULL
) WITH (fillfactor = 10);
COMMENT ON TABLE stream_progress IS 'How far each service''s stream is in the log. Written under the lock of log_head.';
COMMENT ON COLUMN stream_progress.service IS 'Whose stream. Immutable.';
COMMENT ON COLUMN stream_progress.logged_seq IS 'All places up to this one are in the log. Only grows.';
COMMENT ON COLUMN stream_progress.ahead IS 'Places further on that are in the log already, beyond a gap. Mutable.';
