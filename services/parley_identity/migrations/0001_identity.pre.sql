-- Accounts, marketers, introductions and sign-in. What is a customer's starts with identity's own id for them.

CREATE TABLE customers (
    customer text PRIMARY KEY,
    vault_subject text NOT NULL UNIQUE,
    consent_subject text NOT NULL,
    audit_subject text NOT NULL,
    wrapped_seed bytea NOT NULL,
    public_key bytea,
    import_row bytea UNIQUE,
    complete boolean NOT NULL,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE customers IS
    'The only link between a customer''s ids. Deleting a row ends every link that is not already out.';
COMMENT ON COLUMN customers.customer IS 'Identity''s own id: what the customer signs in as. Random. Immutable.';
COMMENT ON COLUMN customers.vault_subject IS 'Vault''s id for the customer. Random. Immutable.';
COMMENT ON COLUMN customers.consent_subject IS 'Consent''s id for the customer. Random. Immutable.';
COMMENT ON COLUMN customers.audit_subject IS 'Audit''s id for the customer. Random. Immutable.';
COMMENT ON COLUMN customers.wrapped_seed IS
    'What pseudonyms are derived from. Encrypted under identity''s wrap key, bound to this row and column. Immutable but for rewrapping.';
COMMENT ON COLUMN customers.public_key IS 'Ed25519 key the customer signs in with; null until an imported account is claimed, then immutable.';
COMMENT ON COLUMN customers.import_row IS 'Keyed hash of importer, import and row key; null for who registered. Immutable.';
COMMENT ON COLUMN customers.complete IS 'Until its import is complete, nobody is introduced to the account. Set once.';
COMMENT ON COLUMN customers.created_at IS 'When the account was opened. Immutable.';

CREATE TABLE claim_codes (
    customer text PRIMARY KEY REFERENCES customers ON DELETE CASCADE,
    code_hash bytea NOT NULL UNIQUE,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE claim_codes IS 'One-time codes by which imported accounts are claimed; a row goes when its code is used.';
COMMENT ON COLUMN claim_codes.customer IS 'Whose account it opens. Immutable.';
COMMENT ON COLUMN claim_codes.code_hash IS 'Keyed hash of the code; the code itself is kept nowhere. Mutable: a newer code ends the older.';
COMMENT ON COLUMN claim_codes.expires_at IS 'From when on it is refused. Mutable with the code.';
CREATE INDEX claim_codes_expires_at ON claim_codes (expires_at);

CREATE TABLE marketers (
    marketer text PRIMARY KEY,
    display_name text NOT NULL,
    legal_entity text NOT NULL,
    sector text NOT NULL,
    level smallint NOT NULL,
    contact text NOT NULL,
    suspended boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE marketers IS 'Marketers, as the operator checked them.';
COMMENT ON COLUMN marketers.marketer IS 'Random id. Immutable.';
COMMENT ON COLUMN marketers.display_name IS 'What people know it by. Immutable.';
COMMENT ON COLUMN marketers.legal_entity IS 'As registered. Immutable.';
COMMENT ON COLUMN marketers.sector IS 'The legal entity in canonical form: equal for all marketers of one entity, who so share pseudonyms. Immutable.';
COMMENT ON COLUMN marketers.level IS 'How far the entity was checked: 1 not, 2 the entity, 3 and its practices. Mutable.';
COMMENT ON COLUMN marketers.contact IS 'Where to write to. Immutable.';
COMMENT ON COLUMN marketers.suspended IS 'It may not ask anybody anything. Mutable.';
COMMENT ON COLUMN marketers.created_at IS 'When it was registered. Immutable.';

CREATE TABLE marketer_keys (
    marketer text NOT NULL REFERENCES marketers,
    use smallint NOT NULL,
    key_id text NOT NULL,
    public_key bytea NOT NULL,
    place bigint GENERATED ALWAYS AS IDENTITY,
    expires_at timestamptz,
    PRIMARY KEY (marketer, use, key_id)
);
COMMENT ON TABLE marketer_keys IS 'Public keys of marketers, expired ones too: none is taken twice.';
COMMENT ON COLUMN marketer_keys.marketer IS 'Whose key. Immutable.';
COMMENT ON COLUMN marketer_keys.use IS '1 releases are sealed to it (X25519), 2 assertions are signed with it (Ed25519). Immutable.';
COMMENT ON COLUMN marketer_keys.key_id IS 'From the key''s thumbprint. Immutable.';
COMMENT ON COLUMN marketer_keys.public_key IS '32 bytes. Immutable.';
COMMENT ON COLUMN marketer_keys.place IS 'Order in which a marketer''s keys came. Immutable.';
COMMENT ON COLUMN marketer_keys.expires_at IS 'From when on it is refused; null for the newest of its use. Set once.';
CREATE UNIQUE INDEX marketer_keys_newest ON marketer_keys (marketer, use) WHERE expires_at IS NULL;

CREATE TABLE epochs (
    customer text NOT NULL REFERENCES customers ON DELETE CASCADE,
    sector text NOT NULL,
    epoch integer NOT NULL CHECK (epoch > 0),
    PRIMARY KEY (customer, sector)
);
COMMENT ON TABLE epochs IS 'How often a customer asked a legal entity to forget them. No row: never, which is epoch 0.';
COMMENT ON COLUMN epochs.customer IS 'Who asked. Immutable.';
COMMENT ON COLUMN epochs.sector IS 'Whom, as in marketers.sector. Immutable.';
COMMENT ON COLUMN epochs.epoch IS 'Goes into the pseudonym, so that each is a new one. Only grows.';

CREATE TABLE introductions (
    customer text NOT NULL REFERENCES customers ON DELETE CASCADE,
    marketer text NOT NULL REFERENCES marketers,
    pseudonym text NOT NULL,
    introduced_at timestamptz NOT NULL,
    PRIMARY KEY (customer, marketer, pseudonym)
);
COMMENT ON TABLE introductions IS 'Which marketer was introduced to whom.';
COMMENT ON COLUMN introductions.customer IS 'Who was introduced. Immutable.';
COMMENT ON COLUMN introductions.marketer IS 'To whom. Immutable.';
COMMENT ON COLUMN introductions.pseudonym IS 'As whom. Immutable.';
COMMENT ON COLUMN introductions.introduced_at IS 'When first. Immutable.';

CREATE TABLE used_assertions (
    assertion bytea PRIMARY KEY,
    forget_at timestamptz NOT NULL
);
COMMENT ON TABLE used_assertions IS 'Sign-in assertions that were traded for tokens: each works once.';
COMMENT ON COLUMN used_assertions.assertion IS 'Keyed hash of the signer''s name and the assertion''s jti. Immutable.';
COMMENT ON COLUMN used_assertions.forget_at IS 'From when on the assertion would be refused as expired anyway. Immutable.';
CREATE INDEX used_assertions_forget_at ON used_assertions (forget_at);
