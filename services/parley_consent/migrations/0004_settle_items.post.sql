-- Settling by items that each carry all of their batch: replaced by batches.
DROP FUNCTION settle(settle_item[], interval);
DROP TYPE settle_item;
