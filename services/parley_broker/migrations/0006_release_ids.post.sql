-- Acknowledging without release ids, as the version before did.
DROP FUNCTION acknowledge(text[], text[], text[], bytea[], uuid, bytea, text);
