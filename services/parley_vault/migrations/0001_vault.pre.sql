-- Items of subjects, encrypted. Every key starts with the subject's id in this service; no index is over a value.

CREATE TABLE subjects (
    subject text COLLATE "C" PRIMARY KEY,
    dek bytea NOT NULL,
    owned boolean NOT NULL,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE subjects IS 'One row a customer who was imported or has acted. Its lock orders the acts of one customer.';
COMMENT ON COLUMN subjects.subject IS 'This service''s id for the customer; means nothing elsewhere. Immutable.';
COMMENT ON COLUMN subjects.dek IS
    'The data key of all the subject''s items, wrapped by the master key and bound to the subject. Rewrapped on rotation.';
COMMENT ON COLUMN subjects.owned IS
    'Whether the customer has acted for themselves: from then on no import writes here. Becomes true, once.';
COMMENT ON COLUMN subjects.created_at IS 'When they were imported or first acted. Immutable.';

CREATE TABLE items (
    subject text COLLATE "C" NOT NULL REFERENCES subjects,
    attribute text COLLATE "C" NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    ciphertext bytea NOT NULL,
    provenance smallint NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (subject, attribute, version)
);
COMMENT ON TABLE items IS 'One row for each version of an item; the newest counts, the others are its history.';
COMMENT ON COLUMN items.subject IS 'Whose item. Immutable.';
COMMENT ON COLUMN items.attribute IS 'A name in the catalogue. Immutable.';
COMMENT ON COLUMN items.version IS 'Counts from 1 without gaps. Immutable.';
COMMENT ON COLUMN items.ciphertext IS
    'Encrypted: the value, under the subject''s data key, bound to subject, attribute and version. Immutable.';
COMMENT ON COLUMN items.provenance IS 'As parley.vault.v1.Provenance. Immutable.';
COMMENT ON COLUMN items.created_at IS 'When this version was put. Immutable.';

CREATE TABLE discoverable (
    subject text COLLATE "C" NOT NULL REFERENCES subjects,
    attribute text COLLATE "C" NOT NULL,
    level smallint NOT NULL CHECK (level > 0),
    PRIMARY KEY (subject, attribute)
);
COMMENT ON TABLE discoverable IS 'Items that may be matched on. No row: not this one.';
COMMENT ON COLUMN discoverable.subject IS 'Whose item. Immutable.';
COMMENT ON COLUMN discoverable.attribute IS 'Which item. Immutable.';
COMMENT ON COLUMN discoverable.level IS 'The least verification level of the marketers that may match on it. Mutable.';
