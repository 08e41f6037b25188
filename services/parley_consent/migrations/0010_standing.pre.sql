-- Where a customer stands is looked for by when consents end: one that ends before a request does can't cover it, and there may be
-- one for each exchange that was ever made under a rule.
CREATE INDEX consents_of ON consents (customer, marketer, valid_until) WHERE state IN (5, 6);
CREATE INDEX consents_paused ON consents (customer, marketer) WHERE state = 6;
COMMENT ON COLUMN notices.due_at IS 'When it is written as an event; the row goes with that. Becomes later where it is missed.';
