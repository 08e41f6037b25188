-- Lets the operator ask for a dead letter again: its reader, which alone can apply it, looks for what is asked for.

ALTER TABLE dead_letters ADD COLUMN replay_asked boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN dead_letters.replay_asked IS 'Whether its reader is to try it again. Mutable: a replay that fails clears it.';
