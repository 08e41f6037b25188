-- Work is no longer looked for among everybody's.
DROP INDEX participants_due;
