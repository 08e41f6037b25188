-- What was released once stays due until it is acknowledged: neither the deadline nor a cancellation takes it back.

ALTER TABLE participants ADD COLUMN released boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN participants.released IS 'A release was committed once: only consent can still stop it. Set once.';

-- Taking a batch of one exchange looks at those still to be done, not at all who ever took part.
CREATE INDEX participants_to_do_of ON participants (marketer, exchange_id, leased_until) WHERE state IN (1, 3, 4);
