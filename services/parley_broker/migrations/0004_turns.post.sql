-- Work is no longer looked for among everybody's, nor by exchange.
DROP INDEX participants_due;
DROP INDEX participants_due_of;
