-- Audiences are no longer looked for among everybody's.
DROP INDEX exchanges_to_match;
