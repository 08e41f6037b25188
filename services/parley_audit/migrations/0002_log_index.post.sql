-- Where a commitment is in the log stands in log_commitments alone.

ALTER TABLE history DROP COLUMN log_index;
