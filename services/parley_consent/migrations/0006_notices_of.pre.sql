-- A notice is dropped by the consent it is about: that took a look at every one that waits.
CREATE INDEX notices_of ON notices (customer, consent_id);
