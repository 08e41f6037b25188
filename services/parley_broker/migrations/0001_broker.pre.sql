-- Exchanges and the feed. Every key starts with the marketer; customers appear by pseudonym and sealed references only.

CREATE TABLE exchanges (
    marketer text NOT NULL,
    exchange_id text NOT NULL,
    terms bytea NOT NULL,
    audience bytea NOT NULL,
    offer_text text NOT NULL,
    decision_deadline timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    cancelled_at timestamptz,
    lapsed boolean NOT NULL DEFAULT false,
    matched boolean NOT NULL,
    match_token text NOT NULL DEFAULT '',
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (marketer, exchange_id)
);
COMMENT ON TABLE exchanges IS 'Marketers'' requests.';
COMMENT ON COLUMN exchanges.marketer IS 'Whose. Immutable.';
COMMENT ON COLUMN exchanges.exchange_id IS 'Random. Immutable.';
COMMENT ON COLUMN exchanges.terms IS 'Serialised parley.common.v1.Terms, the questions of the criteria among the fields. Immutable.';
COMMENT ON COLUMN exchanges.audience IS 'Serialised parley.broker.v1.Audience. Immutable.';
COMMENT ON COLUMN exchanges.offer_text IS 'The offer''s words, the same for everyone. Immutable.';
COMMENT ON COLUMN exchanges.decision_deadline IS 'When everything that is not released ends. Immutable.';
COMMENT ON COLUMN exchanges.created_at IS 'When it was made. Immutable.';
COMMENT ON COLUMN exchanges.cancelled_at IS 'When the marketer ended it; null until then.';
COMMENT ON COLUMN exchanges.lapsed IS 'Its decision deadline has passed, and ended what was undecided.';
COMMENT ON COLUMN exchanges.matched IS 'Everyone it is for is among its participants.';
COMMENT ON COLUMN exchanges.match_token IS 'Where matching goes on.';
COMMENT ON COLUMN exchanges.leased_until IS 'Until when a worker has its matching in hand.';
CREATE INDEX exchanges_to_match ON exchanges (leased_until) WHERE NOT matched AND cancelled_at IS NULL;
CREATE INDEX exchanges_to_lapse ON exchanges (decision_deadline) WHERE NOT lapsed;
CREATE INDEX exchanges_newest ON exchanges (marketer, created_at DESC, exchange_id DESC);

CREATE TABLE introductions (
    marketer text NOT NULL,
    pseudonym text NOT NULL,
    consent_ref bytea NOT NULL,
    vault_ref bytea NOT NULL,
    audit_ref bytea NOT NULL,
    identity_ref bytea NOT NULL,
    PRIMARY KEY (marketer, pseudonym)
);
COMMENT ON TABLE introductions IS 'Who was introduced to whom, and the references that the broker carries and can''t open.';
COMMENT ON COLUMN introductions.marketer IS 'To whom. Immutable.';
COMMENT ON COLUMN introductions.pseudonym IS 'Who, as that marketer knows them. Immutable.';
COMMENT ON COLUMN introductions.consent_ref IS 'For consent''s eyes. Encrypted.';
COMMENT ON COLUMN introductions.vault_ref IS 'For vault''s eyes. Encrypted.';
COMMENT ON COLUMN introductions.audit_ref IS 'For audit''s eyes. Encrypted.';
COMMENT ON COLUMN introductions.identity_ref IS 'For identity''s eyes. Encrypted.';

CREATE TABLE participants (
    marketer text NOT NULL,
    exchange_id text NOT NULL,
    pseudonym text NOT NULL,
    state smallint NOT NULL,
    settled boolean NOT NULL DEFAULT false,
    permit bytea,
    batch bytea,
    sealed bytea,
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (marketer, exchange_id, pseudonym),
    FOREIGN KEY (marketer, exchange_id) REFERENCES exchanges,
    FOREIGN KEY (marketer, pseudonym) REFERENCES introductions
);
COMMENT ON TABLE participants IS 'Where each exchange stands with each customer.';
COMMENT ON COLUMN participants.marketer IS 'Whose exchange. Immutable.';
COMMENT ON COLUMN participants.exchange_id IS 'The exchange. Immutable.';
COMMENT ON COLUMN participants.pseudonym IS 'The customer, as that marketer knows them. Immutable.';
COMMENT ON COLUMN participants.state IS '1 requested, 2 offered, 3 accepted, 4 agreed, 5 finalized, 6 terminated.';
COMMENT ON COLUMN participants.settled IS 'A release was committed: from then on it is only sent again, and no deadline ends it.';
COMMENT ON COLUMN participants.permit IS 'Serialised parley.common.v1.Permit the values were opened under; null but between prepared and settled.';
COMMENT ON COLUMN participants.batch IS 'Serialised parley.common.v1.PermitBatch of the permit.';
COMMENT ON COLUMN participants.sealed IS 'The values, sealed to the marketer; gone once they are settled: what is sent later is opened anew. Encrypted.';
COMMENT ON COLUMN participants.leased_until IS 'Until when a worker has it in hand.';
CREATE INDEX participants_to_do ON participants (leased_until) WHERE state IN (1, 3, 4);
CREATE INDEX participants_to_do_of ON participants (marketer, exchange_id, leased_until) WHERE state IN (1, 3, 4);

CREATE TABLE feeds (
    marketer text PRIMARY KEY,
    last_seq bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE feeds IS 'One row a marketer: its lock makes the order of the feed the order of commits.';
COMMENT ON COLUMN feeds.marketer IS 'Whose feed. Immutable.';
COMMENT ON COLUMN feeds.last_seq IS 'The last place given. Only grows.';

CREATE TABLE deliveries (
    marketer text NOT NULL,
    seq bigint NOT NULL,
    delivery_id text NOT NULL,
    exchange_id text NOT NULL DEFAULT '',
    pseudonym text NOT NULL DEFAULT '',
    payload bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (marketer, seq)
);
COMMENT ON TABLE deliveries IS 'What a marketer has not acknowledged yet: notices, and the places of releases, whose values are not kept.';
COMMENT ON COLUMN deliveries.marketer IS 'Whose feed. Immutable.';
COMMENT ON COLUMN deliveries.seq IS 'Its place in the feed. Immutable.';
COMMENT ON COLUMN deliveries.delivery_id IS 'Random. Immutable.';
COMMENT ON COLUMN deliveries.exchange_id IS 'A release''s exchange; empty for a notice. Immutable.';
COMMENT ON COLUMN deliveries.pseudonym IS 'A release''s customer; empty for a notice. Immutable.';
COMMENT ON COLUMN deliveries.payload IS 'A notice: serialised parley.broker.v1.Delivery without name and token. Empty for a release. Immutable.';
COMMENT ON COLUMN deliveries.created_at IS 'When it was put there. Immutable.';
CREATE UNIQUE INDEX deliveries_name ON deliveries (marketer, delivery_id);
CREATE UNIQUE INDEX deliveries_one_release ON deliveries (marketer, exchange_id, pseudonym) WHERE exchange_id <> '';

CREATE TABLE acknowledged (
    marketer text NOT NULL,
    delivery_id text NOT NULL,
    acknowledged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (marketer, delivery_id)
);
COMMENT ON TABLE acknowledged IS 'Deliveries that are off the feed, by name alone, so that acknowledging one of them (again) is no error.';
COMMENT ON COLUMN acknowledged.marketer IS 'Whose. Immutable.';
COMMENT ON COLUMN acknowledged.delivery_id IS 'Which. Immutable.';
COMMENT ON COLUMN acknowledged.acknowledged_at IS 'By this database''s clock. Immutable.';
