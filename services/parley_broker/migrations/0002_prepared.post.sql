-- Values that are prepared wait in memory alone: after a crash they are decided and opened anew.
UPDATE participants SET state = 1, leased_until = '-infinity' WHERE state = 4;
ALTER TABLE participants DROP COLUMN permit, DROP COLUMN batch, DROP COLUMN sealed;
