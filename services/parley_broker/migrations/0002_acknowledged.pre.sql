-- Whether a release was acknowledged is known by its participant; its name needs no row of its own any more, since it proves
-- itself.
ALTER TABLE participants ADD COLUMN acknowledged boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN participants.acknowledged IS 'The marketer keeps the release safely: it is off the feed for good. Becomes true, once.';
COMMENT ON COLUMN participants.state IS '1 requested, 2 offered, 3 accepted, 5 finalized, 6 terminated.';
COMMENT ON TABLE acknowledged IS 'Notices that are off the feed, by name alone, so that acknowledging one of them again is no error.';

DROP INDEX participants_to_do;
DROP INDEX participants_to_do_of;
CREATE INDEX participants_to_do ON participants (leased_until) WHERE state IN (1, 3);
CREATE INDEX participants_to_do_of ON participants (marketer, exchange_id, leased_until) WHERE state IN (1, 3);
