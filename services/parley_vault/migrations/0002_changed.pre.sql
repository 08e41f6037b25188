-- Every process of vault keeps an index of its own, and hears of what others commit from who has changed since.
ALTER TABLE subjects ADD COLUMN changed xid8;
CREATE INDEX subjects_changed ON subjects (changed) WHERE changed IS NOT NULL;
COMMENT ON COLUMN subjects.changed IS
    'The newest transaction of the customer''s that may have changed what is discoverable of them; none since there is this column.';
