-- Marketers take turns in having audiences found, too: whoever has one waiting is found without going through all of those before them.
CREATE INDEX exchanges_to_find ON exchanges (marketer, leased_until) WHERE NOT matched AND cancelled_at IS NULL;
