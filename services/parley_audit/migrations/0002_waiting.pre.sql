-- The log grows by the clock: what happened waits for the next tick, and a history's line learns its entry from the log.

CREATE TABLE waiting (
    service text NOT NULL,
    seq bigint NOT NULL,
    commitments bytea[] NOT NULL,
    PRIMARY KEY (service, seq)
);
COMMENT ON TABLE waiting IS 'Events that were taken in since the log''s last tick. The next one takes them all, and leaves none.';
COMMENT ON COLUMN waiting.service IS 'Whose stream. Immutable.';
COMMENT ON COLUMN waiting.seq IS 'The event''s place in its stream. Immutable.';
COMMENT ON COLUMN waiting.commitments IS 'The commitments of all that the event tells of. Immutable.';

ALTER TABLE history ALTER COLUMN log_index DROP NOT NULL;
COMMENT ON COLUMN history.log_index IS 'The entry that commits to it, in lines of earlier releases; log_commitments knows it. Immutable.';
