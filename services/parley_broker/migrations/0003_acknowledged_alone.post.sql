-- Acknowledging with an event for each release: replaced by one for all.
DROP FUNCTION acknowledge(text[], text[], text[], uuid[], bytea[], text);
