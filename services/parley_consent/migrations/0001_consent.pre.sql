-- Rules, offers, consents and settlements. Every key starts with the customer's id in this service.

CREATE TABLE customers (
    customer text PRIMARY KEY,
    revision bigint NOT NULL DEFAULT 0,
    audit_ref bytea NOT NULL,
    objected_at timestamptz
);
COMMENT ON TABLE customers IS 'One row a customer who was asked or acted. Its lock orders every act against every settlement.';
COMMENT ON COLUMN customers.customer IS 'This service''s id for the customer; means nothing elsewhere. Immutable.';
COMMENT ON COLUMN customers.revision IS 'Raised by every act of the customer; a permit decided under an older one is stale.';
COMMENT ON COLUMN customers.audit_ref IS 'Sealed to audit: whose history an event belongs to. Mutable: the newest that came along.';
COMMENT ON COLUMN customers.objected_at IS 'Since when the customer objects to all marketing. Mutable.';

CREATE TABLE rules (
    customer text NOT NULL REFERENCES customers,
    rule_id text NOT NULL,
    effect smallint NOT NULL,
    scope_marketer text NOT NULL,
    scope_level smallint NOT NULL,
    terms bytea NOT NULL,
    created_at timestamptz NOT NULL,
    ended_at timestamptz,
    one_time boolean NOT NULL DEFAULT false,
    PRIMARY KEY (customer, rule_id)
);
COMMENT ON TABLE rules IS 'Customers'' standing terms.';
COMMENT ON COLUMN rules.customer IS 'Whose rule. Immutable.';
COMMENT ON COLUMN rules.rule_id IS 'Random. Immutable.';
COMMENT ON COLUMN rules.effect IS '1 allow, 2 ask, 3 refuse. Immutable.';
COMMENT ON COLUMN rules.scope_marketer IS 'The one marketer it stands for; empty: see scope_level. Immutable.';
COMMENT ON COLUMN rules.scope_level IS 'The verification level from which up it stands; 0: everyone. Immutable.';
COMMENT ON COLUMN rules.terms IS 'Serialised parley.common.v1.Terms. Immutable.';
COMMENT ON COLUMN rules.created_at IS 'When it was made. Immutable.';
COMMENT ON COLUMN rules.ended_at IS 'When it was ended; null while it stands.';
COMMENT ON COLUMN rules.one_time IS 'One release to each marketer, then never again. Immutable.';

CREATE TABLE consents (
    customer text NOT NULL REFERENCES customers,
    consent_id text NOT NULL,
    state smallint NOT NULL,
    marketer text NOT NULL,
    marketer_name text NOT NULL,
    marketer_entity text NOT NULL,
    marketer_contact text NOT NULL,
    marketer_level smallint NOT NULL,
    pseudonym text NOT NULL,
    exchange text NOT NULL,
    terms bytea NOT NULL,
    offer_text text NOT NULL,
    one_time boolean NOT NULL,
    rule_id text NOT NULL DEFAULT '',
    artefact text NOT NULL DEFAULT '',
    salt bytea,
    detail bytea,
    decision_deadline timestamptz NOT NULL,
    valid_until timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    agreed_at timestamptz,
    revoked_at timestamptz,
    revoked_by text NOT NULL DEFAULT '',
    PRIMARY KEY (customer, consent_id)
);
COMMENT ON TABLE consents IS 'Offers, and the consents that came of them or of rules: one row for the whole life.';
COMMENT ON COLUMN consents.customer IS 'Whose consent. Immutable.';
COMMENT ON COLUMN consents.consent_id IS 'Random. Immutable.';
COMMENT ON COLUMN consents.state IS 'As parley.consent.v1.ConsentState; lapsing and expiring are derived from the times, never written.';
COMMENT ON COLUMN consents.marketer IS 'With whom. Immutable.';
COMMENT ON COLUMN consents.marketer_name IS 'As people know it, when it asked. Immutable.';
COMMENT ON COLUMN consents.marketer_entity IS 'Its legal entity, when it asked. Immutable.';
COMMENT ON COLUMN consents.marketer_contact IS 'Where to write to, when it asked. Immutable.';
COMMENT ON COLUMN consents.marketer_level IS 'Its verification level, when it asked. Immutable.';
COMMENT ON COLUMN consents.pseudonym IS 'Who the customer is to that marketer. Immutable.';
COMMENT ON COLUMN consents.exchange IS 'The exchange it came of. Immutable.';
COMMENT ON COLUMN consents.terms IS 'Serialised parley.common.v1.Terms: what is asked, then what is agreed. Immutable once agreed.';
COMMENT ON COLUMN consents.offer_text IS 'The offer''s words; empty where a rule agreed. Immutable.';
COMMENT ON COLUMN consents.one_time IS 'One release, then never again. Immutable.';
COMMENT ON COLUMN consents.rule_id IS 'The rule it was born from; empty where the customer accepted. Immutable.';
COMMENT ON COLUMN consents.artefact IS 'The signed artefact (JWS); empty until agreed, then immutable.';
COMMENT ON COLUMN consents.salt IS 'Opens the agreement''s leaf in the audit log; null until agreed, then immutable.';
COMMENT ON COLUMN consents.detail IS 'As salt.';
COMMENT ON COLUMN consents.decision_deadline IS 'When the offer lapses. Immutable.';
COMMENT ON COLUMN consents.valid_until IS 'When the consent ends. Immutable.';
COMMENT ON COLUMN consents.created_at IS 'When the offer was made or the consent born. Immutable.';
COMMENT ON COLUMN consents.agreed_at IS 'When it was agreed; null until then.';
COMMENT ON COLUMN consents.revoked_at IS 'When it was withdrawn; null until then.';
COMMENT ON COLUMN consents.revoked_by IS 'By whom; empty until then.';
CREATE UNIQUE INDEX consents_one_offer ON consents (customer, exchange) WHERE rule_id = '';
CREATE INDEX consents_with ON consents (customer, marketer) WHERE state IN (5, 6);

CREATE TABLE settlements (
    customer text NOT NULL REFERENCES customers,
    release_id text NOT NULL,
    consent_id text NOT NULL,
    exchange text NOT NULL,
    one_time boolean NOT NULL,
    settled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    salt bytea NOT NULL,
    detail bytea NOT NULL,
    PRIMARY KEY (customer, release_id),
    FOREIGN KEY (customer, consent_id) REFERENCES consents
);
COMMENT ON TABLE settlements IS 'Releases: the commit of a row is the release. Rows are never changed.';
COMMENT ON COLUMN settlements.customer IS 'Whose. Immutable.';
COMMENT ON COLUMN settlements.release_id IS 'One per exchange, pseudonym and round. Immutable.';
COMMENT ON COLUMN settlements.consent_id IS 'The consent it was made under. Immutable.';
COMMENT ON COLUMN settlements.exchange IS 'The exchange it was made in. Immutable.';
COMMENT ON COLUMN settlements.one_time IS 'As the consent''s: the index below lets such a consent have one settlement. Immutable.';
COMMENT ON COLUMN settlements.settled_at IS 'By this database''s clock. Immutable.';
COMMENT ON COLUMN settlements.salt IS 'Opens the release''s leaf in the audit log. Immutable.';
COMMENT ON COLUMN settlements.detail IS 'As salt.';
CREATE INDEX settlements_of ON settlements (customer, consent_id);
CREATE UNIQUE INDEX settlements_one_use ON settlements (customer, consent_id) WHERE one_time;

CREATE TABLE notices (
    notice_id text PRIMARY KEY,
    due_at timestamptz NOT NULL,
    customer text NOT NULL,
    consent_id text NOT NULL,
    marketer text NOT NULL,
    pseudonym text NOT NULL,
    notice text NOT NULL
);
COMMENT ON TABLE notices IS 'What marketers are yet to be told, each after a random delay of its own.';
COMMENT ON COLUMN notices.notice_id IS 'Random. Immutable.';
COMMENT ON COLUMN notices.due_at IS 'When it is written as an event; the row goes with that. Immutable.';
COMMENT ON COLUMN notices.customer IS 'Whose consent it is about; stays here. Immutable.';
COMMENT ON COLUMN notices.consent_id IS 'The consent. Immutable.';
COMMENT ON COLUMN notices.marketer IS 'Who is told. Immutable.';
COMMENT ON COLUMN notices.pseudonym IS 'About whom, as that marketer knows them. Immutable.';
COMMENT ON COLUMN notices.notice IS 'ConsentRevoked, ConsentPaused or ConsentResumed. Immutable.';
CREATE INDEX notices_due ON notices (due_at);

CREATE TABLE suspended_marketers (
    marketer text PRIMARY KEY
);
COMMENT ON TABLE suspended_marketers IS 'Marketers that the operator has suspended, as identity last said.';
COMMENT ON COLUMN suspended_marketers.marketer IS 'Its resource name. Immutable.';

CREATE TABLE audit_progress (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    logged_seq bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE audit_progress IS 'One row: how far audit has made leaves of this service''s stream. Settlements fail closed on it.';
COMMENT ON COLUMN audit_progress.one IS 'Always true: there is one row. Immutable.';
COMMENT ON COLUMN audit_progress.logged_seq IS 'The last sequence in the log. Only grows.';
INSERT INTO audit_progress DEFAULT VALUES;
