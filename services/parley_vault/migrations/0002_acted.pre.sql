-- Every process of vault keeps an index of its own, and hears of what others commit from who acted since.
ALTER TABLE subjects ADD COLUMN acted xid8;
CREATE INDEX subjects_acted ON subjects (acted) WHERE acted IS NOT NULL;
COMMENT ON COLUMN subjects.acted IS 'The transaction of the customer''s newest act; none if they have not acted since there is this column.';
