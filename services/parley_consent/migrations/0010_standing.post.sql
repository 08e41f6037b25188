-- Replaced by one that knows when consents end.
DROP INDEX consents_with;
