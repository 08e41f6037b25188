-- Marketers take turns: whoever has work to be done is found without going through all the work of those before them.
CREATE INDEX participants_due_by ON participants (marketer, leased_until) WHERE state IN (1, 3);
