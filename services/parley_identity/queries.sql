-- name: customers_insert
-- Open accounts; rows of an import that have one already keep it. In one order always, so that two imports can't deadlock.
INSERT INTO customers (customer, vault_subject, consent_subject, audit_subject, wrapped_seed, public_key, import_row,
    complete, created_at)
SELECT n.customer, n.vault_subject, n.consent_subject, n.audit_subject, n.wrapped_seed, n.public_key, n.import_row,
    n.complete, $9
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::bytea[], $8::boolean[])
    AS n (customer, vault_subject, consent_subject, audit_subject, wrapped_seed, public_key, import_row, complete)
ORDER BY n.import_row
ON CONFLICT (import_row) DO NOTHING;

-- name: customer_find
-- One account.
SELECT customer, vault_subject, consent_subject, audit_subject, wrapped_seed, public_key, import_row, complete
FROM customers WHERE customer = $1;

-- name: customer_any
-- Any account.
SELECT customer, vault_subject, consent_subject, audit_subject, wrapped_seed, public_key, import_row, complete
FROM customers WHERE customer > '' ORDER BY customer LIMIT 1;

-- name: customers_imported
-- The accounts of rows of an import.
SELECT customer, vault_subject, consent_subject, audit_subject, wrapped_seed, public_key, import_row, complete
FROM customers WHERE import_row = ANY($1);

-- name: customers_imported_lock
-- The accounts of rows of an import, locked against being claimed or completed meanwhile, in one order always.
SELECT customer, vault_subject, consent_subject, audit_subject, wrapped_seed, public_key, import_row, complete
FROM customers WHERE import_row = ANY($1) ORDER BY customer FOR UPDATE;

-- name: customers_complete
-- Mark accounts as complete.
UPDATE customers SET complete = true WHERE customer = ANY($1);

-- name: customers_found
-- Complete accounts by vault's ids, with their epoch in a sector.
SELECT c.customer, c.vault_subject, c.consent_subject, c.audit_subject, c.wrapped_seed, c.public_key, c.import_row,
    c.complete, coalesce(e.epoch, 0) AS epoch
FROM customers AS c LEFT JOIN epochs AS e ON e.customer = c.customer AND e.sector = $2
WHERE c.vault_subject = ANY($1) AND c.complete;

-- name: claim_codes_put
-- Give accounts new codes, which end the old ones.
INSERT INTO claim_codes (customer, code_hash, expires_at)
SELECT n.customer, n.code_hash, $3 FROM unnest($1::text[], $2::bytea[]) AS n (customer, code_hash) ORDER BY n.customer
ON CONFLICT (customer) DO UPDATE SET code_hash = excluded.code_hash, expires_at = excluded.expires_at;

-- name: customer_claim
-- Give the account that a code opens its owner's key; nothing if there is none, or it has an owner.
UPDATE customers AS c SET public_key = $2
WHERE c.public_key IS NULL AND c.customer = (
    SELECT CASE WHEN expires_at > $3 THEN customer END FROM claim_codes WHERE code_hash = $1)
RETURNING c.customer, c.vault_subject, c.consent_subject, c.audit_subject, c.wrapped_seed, c.public_key, c.import_row,
    c.complete;

-- name: claim_code_use
-- Use up a code; nothing if it was replaced while its account was waited for.
DELETE FROM claim_codes WHERE customer = $1 AND code_hash = $2 RETURNING true;

-- name: claim_codes_purge
-- Forget codes that have expired.
DELETE FROM claim_codes WHERE expires_at <= $1;

-- name: marketer_find
-- A marketer, once for each of its keys, newest first.
SELECT m.marketer, m.display_name, m.legal_entity, m.sector, m.level, m.contact, m.suspended, k.key_id, k.use, k.public_key,
    k.expires_at
FROM marketers AS m JOIN marketer_keys AS k USING (marketer)
WHERE m.marketer = $1 ORDER BY k.place DESC;

-- name: marketer_insert
-- Register a marketer.
INSERT INTO marketers (marketer, display_name, legal_entity, sector, level, contact, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: marketer_update
-- Change level or suspension where given; answers whether anything is different now.
UPDATE marketers SET level = coalesce($2, level), suspended = coalesce($3, suspended)
WHERE marketer = $1 AND (level, suspended) IS DISTINCT FROM (coalesce($2, level), coalesce($3, suspended))
RETURNING true;

-- name: marketer_lock
-- Lock a marketer while its keys change; nothing if there is none.
SELECT true FROM marketers WHERE marketer = $1 FOR UPDATE;

-- name: marketer_keys_retire
-- Let the newest key of a use expire.
UPDATE marketer_keys SET expires_at = $3 WHERE marketer = $1 AND use = $2 AND expires_at IS NULL;

-- name: marketer_key_insert
-- Add a key; nothing if the marketer had it before.
INSERT INTO marketer_keys (marketer, use, key_id, public_key) VALUES ($1, $2, $3, $4)
ON CONFLICT (marketer, use, key_id) DO NOTHING
RETURNING true;

-- name: introductions_insert
-- Note who was introduced; in one order always, so that two batches can't deadlock.
INSERT INTO introductions (customer, marketer, pseudonym, introduced_at)
SELECT DISTINCT n.customer, $3, n.pseudonym, $4::timestamptz FROM unnest($1::text[], $2::text[]) AS n (customer, pseudonym)
ORDER BY n.customer
ON CONFLICT (customer, marketer, pseudonym) DO NOTHING;

-- name: assertion_use
-- Use up an assertion; nothing if it was used before.
INSERT INTO used_assertions (assertion, forget_at) VALUES ($1, $2) ON CONFLICT (assertion) DO NOTHING RETURNING true;

-- name: assertions_purge
-- Forget assertions that have expired.
DELETE FROM used_assertions WHERE forget_at <= $1;
