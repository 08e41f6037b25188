-- What every service's database holds: events on their way out, events taken in, and answers already given.

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL UNIQUE,
    type text NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    envelope bytea NOT NULL,
    stream_seq bigint UNIQUE
) WITH (
    -- A queue: most rows are dead within a second, and left to a share of the table they would slow its indexes.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 5000
);
COMMENT ON TABLE outbox IS
    'Events of this service that not every reader has acknowledged yet: the source from which a wiped stream is rebuilt.';
COMMENT ON COLUMN outbox.id IS 'Order of writing, not of committing. Immutable.';
COMMENT ON COLUMN outbox.event_id IS 'UUIDv7, the readers'' idempotency key. Immutable.';
COMMENT ON COLUMN outbox.type IS 'Full proto name of the event. Immutable.';
COMMENT ON COLUMN outbox.occurred_at IS 'When the row was written, by this database''s clock. Immutable.';
COMMENT ON COLUMN outbox.envelope IS
    'Serialised parley.common.v1.EventEnvelope; what concerns a customer in it is sealed to its reader. Immutable.';
COMMENT ON COLUMN outbox.stream_seq IS
    'Place in the stream, without gaps. Null until the relay gives it, once; then immutable.';

-- The relay numbers these in order. With the unique index on stream_seq it also answers, by two probes and however long
-- the backlog is, how old the oldest row past a watermark w is: the lowest id here (stream_seq IS NULL), and the lowest
-- stream_seq > w. (min(occurred_at) over them would read every row.)
CREATE INDEX outbox_unnumbered ON outbox (id) INCLUDE (occurred_at) WHERE stream_seq IS NULL;

CREATE TABLE stream_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    last_seq bigint NOT NULL DEFAULT 0,
    published_seq bigint NOT NULL DEFAULT 0,
    acked_seq bigint NOT NULL DEFAULT 0,
    CHECK (acked_seq <= published_seq AND published_seq <= last_seq)
) WITH (fillfactor = 10);
COMMENT ON TABLE stream_head IS 'One row: how far this service''s stream has come. Whoever relays holds its lock.';
COMMENT ON COLUMN stream_head.one IS 'Always true: there is one row. Immutable.';
COMMENT ON COLUMN stream_head.last_seq IS 'The last place given to an outbox row. Only grows.';
COMMENT ON COLUMN stream_head.published_seq IS
    'Rows up to here are in the stream. Falls back to acked_seq when the stream was lost.';
COMMENT ON COLUMN stream_head.acked_seq IS
    'Rows up to here were acknowledged by every reader and are deleted. Only grows.';
INSERT INTO stream_head DEFAULT VALUES;

CREATE TABLE inbox (
    event_id uuid PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE inbox IS 'Events of other services that this one has applied, or set aside as dead letters.';
COMMENT ON COLUMN inbox.event_id IS 'The event''s id. Immutable.';
COMMENT ON COLUMN inbox.received_at IS 'When it was first taken in, by this database''s clock. Immutable.';

CREATE TABLE dead_letters (
    reader text NOT NULL,
    stream text NOT NULL,
    seq bigint NOT NULL,
    envelope bytea NOT NULL,
    error_type text NOT NULL,
    died_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (reader, stream, seq)
);
COMMENT ON TABLE dead_letters IS 'Events that could not be applied, kept until they are replayed.';
COMMENT ON COLUMN dead_letters.reader IS 'The consumer group that failed on it. Immutable.';
COMMENT ON COLUMN dead_letters.stream IS 'The service whose event it is. Immutable.';
COMMENT ON COLUMN dead_letters.seq IS 'Its place in that service''s stream. Immutable.';
COMMENT ON COLUMN dead_letters.envelope IS 'As outbox.envelope. Immutable.';
COMMENT ON COLUMN dead_letters.error_type IS 'The class of the last error, never its message. Mutable: the last replay''s.';
COMMENT ON COLUMN dead_letters.died_at IS 'When it was set aside, by this database''s clock. Immutable.';

CREATE TABLE requests (
    caller text NOT NULL,
    method text NOT NULL,
    request_id text NOT NULL,
    fingerprint bytea NOT NULL,
    response bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (caller, method, request_id)
);
COMMENT ON TABLE requests IS 'Answers already given to mutations, so that a retry does nothing twice.';
COMMENT ON COLUMN requests.caller IS 'Whose request_id it is: ids of different callers never meet. Immutable.';
COMMENT ON COLUMN requests.method IS 'Full name of the RPC. Immutable.';
COMMENT ON COLUMN requests.request_id IS 'As the caller sent it (AIP-155). Immutable.';
COMMENT ON COLUMN requests.fingerprint IS 'Digest of the request, to tell a retry from another request. Immutable.';
COMMENT ON COLUMN requests.response IS
    'Serialised response of the first call. Null only inside the transaction that makes it; then immutable.';
COMMENT ON COLUMN requests.created_at IS 'By this database''s clock. Immutable.';
CREATE INDEX requests_created_at ON requests (created_at);
