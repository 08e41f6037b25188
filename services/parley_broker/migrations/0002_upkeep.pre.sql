-- What the loops look for stays as little as there is to do, however many exchanges and participants there have been.

ALTER TABLE exchanges ADD COLUMN lapsed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN exchanges.lapsed IS 'Its decision deadline has passed, and ended what was undecided.';
CREATE INDEX exchanges_to_lapse ON exchanges (decision_deadline) WHERE NOT lapsed;

CREATE INDEX participants_to_do_of ON participants (marketer, exchange_id, leased_until) WHERE state IN (1, 3, 4);
