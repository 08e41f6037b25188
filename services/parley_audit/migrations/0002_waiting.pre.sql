-- The log grows by the clock: what happened waits for the next tick, and a history's line learns its entry from the log.

CREATE TABLE waiting (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service text NOT NULL,
    seq bigint NOT NULL,
    commitments bytea[] NOT NULL,
    size integer GENERATED ALWAYS AS (cardinality(commitments)) STORED CHECK (size > 0)
) WITH (
    -- Rows come and go all the time: clean up after so many, however large the table once was.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000
);
COMMENT ON TABLE waiting IS 'Events that were taken in since the log''s last tick. The next one takes them, as many as share an entry.';
COMMENT ON COLUMN waiting.id IS 'In the order in which they were taken in, or nearly: it comes before the commit. Immutable.';
COMMENT ON COLUMN waiting.service IS 'Whose stream. Immutable.';
COMMENT ON COLUMN waiting.seq IS 'The event''s place in its stream. Immutable.';
COMMENT ON COLUMN waiting.commitments IS 'The commitments of all that the event tells of. Immutable.';
COMMENT ON COLUMN waiting.size IS 'How many these are, known without reading them. Immutable.';

COMMENT ON COLUMN log_commitments.inner_index IS 'Its place in the tree over which the entry has the root. Immutable.';

ALTER TABLE history ALTER COLUMN log_index DROP NOT NULL;
COMMENT ON COLUMN history.log_index IS 'The entry that commits to it, in lines of before; log_commitments knows it. Immutable.';
