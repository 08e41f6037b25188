-- What settled under a consent is read from its newest on, and there may be any number of it.
CREATE INDEX settlements_newest ON settlements (customer, consent_id, settled_at, release_id);
DROP INDEX settlements_of;
