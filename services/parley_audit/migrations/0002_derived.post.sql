-- What follows from other tables is not kept twice. Tiles of the lowest level are read from the entries.
DELETE FROM log_tiles WHERE level = 0;
ALTER TABLE log_tiles ADD CHECK (level > 0);
COMMENT ON COLUMN log_tiles.level IS 'From 1: roots of full tiles of the level below; the lowest are hashes of entries. Immutable.';

-- Where a commitment is in the log stands in log_commitments. Last, as it keeps readers of histories out.
ALTER TABLE history DROP COLUMN log_index;
