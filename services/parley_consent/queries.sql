-- name: customer_act
-- Lock a customer's row for an act of theirs, and raise the revision: what was decided before is stale from its commit on.
INSERT INTO customers (customer, revision, audit_ref) VALUES ($1, 1, $2)
ON CONFLICT (customer) DO UPDATE SET revision = customers.revision + 1, audit_ref = excluded.audit_ref;

-- name: customer_object
-- Object to all marketing; answers whether that is new: a second time keeps the first.
UPDATE customers SET objected_at = $2 WHERE customer = $1 AND objected_at IS NULL RETURNING true;

-- name: customer_objected
-- Read when the customer objected to all marketing.
SELECT objected_at FROM customers WHERE customer = $1;

-- name: customer_lift_objection
-- Lift an objection; answers whether there was one.
UPDATE customers SET objected_at = NULL WHERE customer = $1 AND objected_at IS NOT NULL RETURNING true;

-- name: consents_live
-- So many of the customer's active and paused consents that haven't expired at one moment, and were agreed by another, if it is given;
-- each with so many of the newest releases that settled under it. In the order of an index: all may be many more than are asked for. What
-- a rule gave birth to is dated by this clock, which may be ahead of the service's.
SELECT consent_id, state, marketer, marketer_name, marketer_entity, marketer_contact, marketer_level, pseudonym, exchange, terms,
    offer_text, rule_id, artefact, salt, detail, decision_deadline, valid_until, created_at, agreed_at, revoked_at, revoked_by,
    ARRAY(
        SELECT ROW(s.release_id, s.exchange, s.settled_at) FROM settlements AS s
        WHERE s.customer = k.customer AND s.consent_id = k.consent_id ORDER BY s.settled_at DESC, s.release_id DESC LIMIT $3
    ) AS settlements
FROM consents AS k WHERE customer = $1 AND state IN (5, 6) AND valid_until > $2
    AND ($4::timestamptz IS NULL OR agreed_at <= $4 + CASE WHEN rule_id <> '' THEN interval '5 s' ELSE interval '0' END)
ORDER BY marketer LIMIT $5;

-- name: customer_meet
-- Make rows for customers who are asked for the first time.
INSERT INTO customers (customer, audit_ref)
SELECT * FROM unnest($1::text[], $2::bytea[]) AS met (customer, audit_ref) ORDER BY met.customer
ON CONFLICT (customer) DO NOTHING;

-- name: standing
-- Where customers stand, each with a marketer in an exchange: all of one moment, so that a revision and what it guards belong
-- together. Left out are rules for other marketers, rules of one release that this one has had, and consents that have expired, or
-- were for one use and had it in another exchange, or end before the request does (but a pause counts): thousands may be left behind.
-- Where the exchange has had its release, the consent that it was made under is the only one, for it is sent again under no other;
-- else its own comes first, then the newest: $6 at most of those in force, and of those paused. EXISTS wouldn't do: it may be answered
-- from a hash of the whole table.
SELECT coalesce(c.revision, 0) AS revision, c.objected_at IS NOT NULL AS objected,
    CASE WHEN c.revision > 0 THEN c.audit_ref ELSE '' END AS audit_ref,
    had.settled_at AS released_at,
    (SELECT o.state FROM consents AS o WHERE o.customer = a.customer AND o.exchange = a.exchange AND o.rule_id = '') AS offer,
    ARRAY(
        SELECT ROW(r.rule_id, r.effect, r.scope_marketer, r.scope_level, r.terms) FROM rules AS r
        WHERE r.customer = a.customer AND r.ended_at IS NULL AND r.scope_marketer IN ('', a.marketer)
            AND NOT (r.effect = 1 AND r.one_time AND (
            SELECT true FROM consents AS k JOIN settlements AS s ON s.customer = k.customer AND s.consent_id = k.consent_id
            WHERE k.customer = r.customer AND k.rule_id = r.rule_id AND k.marketer = a.marketer LIMIT 1) IS TRUE)
    ) AS rules,
    ARRAY(
        SELECT ROW(k.consent_id, k.state, k.terms) FROM (
            (SELECT c.consent_id, c.state, c.terms, c.created_at FROM consents AS c
            WHERE c.customer = a.customer AND c.marketer = a.marketer AND c.state = 5 AND c.valid_until > $4 AND c.valid_until >= a.until
                AND (had.consent_id IS NULL OR had.consent_id = c.consent_id)
                AND NOT (c.one_time AND (
                    SELECT true FROM settlements AS s
                    WHERE s.customer = a.customer AND s.consent_id = c.consent_id AND s.exchange <> a.exchange LIMIT 1) IS TRUE)
            ORDER BY c.exchange = a.exchange DESC, c.created_at DESC LIMIT $6)
            UNION ALL
            (SELECT c.consent_id, c.state, c.terms, c.created_at FROM consents AS c
            WHERE c.customer = a.customer AND c.marketer = a.marketer AND c.state = 6 AND c.valid_until > $4
                AND (had.consent_id IS NULL OR had.consent_id = c.consent_id)
                AND NOT (c.one_time AND (
                    SELECT true FROM settlements AS s
                    WHERE s.customer = a.customer AND s.consent_id = c.consent_id AND s.exchange <> a.exchange LIMIT 1) IS TRUE)
            ORDER BY c.exchange = a.exchange DESC, c.created_at DESC LIMIT $6)
        ) AS k ORDER BY k.created_at DESC
    ) AS consents
FROM unnest($1::text[], $2::text[], $3::text[], $5::timestamptz[]) WITH ORDINALITY AS a (customer, marketer, exchange, until, place)
LEFT JOIN customers AS c ON c.customer = a.customer
LEFT JOIN LATERAL (
    SELECT consent_id, settled_at FROM settlements WHERE customer = a.customer AND exchange = a.exchange
    ORDER BY settled_at DESC LIMIT 1) AS had ON true
ORDER BY a.place;

-- name: offers_insert
-- Open offers, one for each customer and exchange; answers those that are new. In one order always: each waits for its
-- customer's row, as acts and settlements do.
INSERT INTO consents (customer, consent_id, state, marketer, marketer_name, marketer_entity, marketer_contact, marketer_level,
    pseudonym, exchange, terms, offer_text, one_time, decision_deadline, valid_until, created_at)
SELECT o.customer, o.consent_id, 1, $5, $6, $7, $8, $9, o.pseudonym, $10, $11, $12, $13, $14, $15, $4
FROM unnest($1::text[], $2::text[], $3::text[]) AS o (customer, consent_id, pseudonym) ORDER BY o.customer
ON CONFLICT DO NOTHING
RETURNING consent_id;

-- name: rule_insert
-- Add a rule.
INSERT INTO rules (customer, rule_id, effect, scope_marketer, scope_level, terms, one_time, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8);

-- name: rule_insert_new
-- Add a rule, unless one stands that says the same.
INSERT INTO rules (customer, rule_id, effect, scope_marketer, scope_level, terms, one_time, created_at)
SELECT $1, $2, $3, $4, $5, $6, $7, $8
WHERE (SELECT true FROM rules WHERE customer = $1 AND ended_at IS NULL
    AND (effect, scope_marketer, scope_level, terms) = ($3, $4, $5, $6) LIMIT 1) IS NULL;

-- name: rules_count
-- Count the customer's standing rules for a marketer ('': for whoever meets a level, and for everyone).
SELECT count(*) FROM rules WHERE customer = $1 AND scope_marketer = $2 AND ended_at IS NULL;

-- name: rule_end
-- End a rule of the customer's; answers whether one stood.
UPDATE rules SET ended_at = $3 WHERE customer = $1 AND rule_id = $2 AND ended_at IS NULL RETURNING true;

-- name: rules_page
-- A page of the customer's standing rules, newest first.
SELECT rule_id, effect, scope_marketer, scope_level, terms, created_at FROM rules
WHERE customer = $1 AND ended_at IS NULL AND (created_at, rule_id) < ($2, $3)
ORDER BY created_at DESC, rule_id DESC LIMIT $4;

-- name: consent_find
-- One row of the customer's, offer or consent, with so many of the newest releases that settled under it.
SELECT consent_id, state, marketer, marketer_name, marketer_entity, marketer_contact, marketer_level, pseudonym, exchange, terms,
    offer_text, rule_id, artefact, salt, detail, decision_deadline, valid_until, created_at, agreed_at, revoked_at, revoked_by,
    ARRAY(
        SELECT ROW(s.release_id, s.exchange, s.settled_at) FROM settlements AS s
        WHERE s.customer = k.customer AND s.consent_id = k.consent_id ORDER BY s.settled_at DESC, s.release_id DESC LIMIT $3
    ) AS settlements
FROM consents AS k WHERE customer = $1 AND consent_id = $2;

-- name: settlements_page
-- A page of what settled under a consent of the customer's, newest first; no row where there is no such consent, one at least where
-- there is.
SELECT s.release_id, s.exchange, s.settled_at
FROM consents AS k LEFT JOIN LATERAL (
    SELECT release_id, exchange, settled_at FROM settlements
    WHERE customer = k.customer AND consent_id = k.consent_id AND (settled_at, release_id) < ($3, $4)
    ORDER BY settled_at DESC, release_id DESC LIMIT $5
) AS s ON true
WHERE k.customer = $1 AND k.consent_id = $2 AND k.agreed_at IS NOT NULL
ORDER BY s.settled_at DESC, s.release_id DESC;

-- name: consents_page
-- A page of the customer's agreements ($5) or offers (not $5), newest first; of offers only the open ones where $6.
SELECT consent_id, state, marketer, marketer_name, marketer_entity, marketer_contact, marketer_level, pseudonym, exchange, terms,
    offer_text, rule_id, artefact, salt, detail, decision_deadline, valid_until, created_at, agreed_at, revoked_at, revoked_by
FROM consents
WHERE customer = $1 AND (created_at, consent_id) < ($2, $3)
    AND CASE WHEN $5 THEN agreed_at IS NOT NULL ELSE rule_id = '' END
    AND (NOT $6 OR (state IN (1, 2) AND decision_deadline > $7))
ORDER BY created_at DESC, consent_id DESC LIMIT $4;

-- name: consent_agree
-- Make an offer a consent.
UPDATE consents SET state = 5, artefact = $3, salt = $4, detail = $5, agreed_at = $6, terms = $7
WHERE customer = $1 AND consent_id = $2;

-- name: consent_move
-- Change a consent's state.
UPDATE consents SET state = $3 WHERE customer = $1 AND consent_id = $2;

-- name: consents_revoke
-- End consents of a customer's, and plan that their marketers will be told so, and nothing else any more. One statement, because
-- under load each waits its turn, and whoever withdraws waits for all of them.
WITH overtaken AS (DELETE FROM notices WHERE customer = $1 AND consent_id = ANY($2::text[])),
told AS (
    INSERT INTO notices (customer, consent_id, notice_id, due_at, marketer, pseudonym, notice)
    SELECT $1, * FROM unnest($2::text[], $5::text[], $6::timestamptz[], $7::text[], $8::text[], $9::text[]))
UPDATE consents SET state = 7, revoked_at = $3, revoked_by = $4 WHERE customer = $1 AND consent_id = ANY($2::text[]);

-- name: settle
-- Commit releases or refuse them; see the function.
SELECT refusal, salt, detail, artefact, born_salt, born_detail FROM settle($1::settle_batch[], $2::settle_release[], $3) ORDER BY ordinal;

-- name: customers_free
-- Which of these customers nobody is acting for, or settling with, just now.
SELECT customer FROM customers WHERE customer = ANY($1) FOR UPDATE SKIP LOCKED;

-- name: notice_schedule
-- Plan what a marketer will be told.
INSERT INTO notices (customer, consent_id, notice_id, due_at, marketer, pseudonym, notice) VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: notice_cancel
-- Drop a pending notice of a kind about a consent; answers whether there was one.
DELETE FROM notices WHERE customer = $1 AND consent_id = $2 AND notice = $3 RETURNING true;

-- name: notices_take
-- Take the notices that are due since $1, by $2, earliest first; no two takers get the same.
DELETE FROM notices WHERE notice_id = ANY (ARRAY(
    SELECT notice_id FROM notices WHERE due_at BETWEEN $1 AND $2 ORDER BY due_at LIMIT 100 FOR UPDATE SKIP LOCKED))
RETURNING customer, consent_id, marketer, pseudonym, notice, (
    SELECT audit_ref FROM customers WHERE customers.customer = notices.customer) AS audit_ref;

-- name: notices_put_off
-- Plan anew those that were due before $1, after a random delay of up to $3 from $2 on: one for all that one marketer was to be told
-- of one customer at one time. An update, so that whoever overtakes a notice meanwhile finds it.
WITH late AS (
    SELECT notice_id, customer, marketer, due_at FROM notices WHERE due_at < $1 ORDER BY due_at FETCH FIRST 1000 ROWS WITH TIES
), drawn AS MATERIALIZED (
    SELECT customer, marketer, due_at, $2::timestamptz + random() * $3::interval AS again
    FROM (SELECT DISTINCT customer, marketer, due_at FROM late) AS told
)
UPDATE notices AS n SET due_at = (
    SELECT again FROM drawn AS d WHERE d.customer = n.customer AND d.marketer = n.marketer AND d.due_at = n.due_at)
WHERE n.notice_id = ANY (ARRAY(SELECT notice_id FROM late)) AND n.due_at < $1;

-- name: audit_progress_find
-- How far audit has logged this service's stream.
SELECT logged_seq FROM audit_progress;

-- name: audit_progress_set
-- Note how far audit has logged this service's stream.
UPDATE audit_progress SET logged_seq = greatest(logged_seq, $1);

-- name: marketer_suspend
-- Note that a marketer is suspended, since a place of the stream that says so.
INSERT INTO suspended_marketers (marketer, seq) VALUES ($1, $2)
ON CONFLICT (marketer) DO UPDATE SET seq = greatest(suspended_marketers.seq, excluded.seq);

-- name: marketer_reinstate
-- Note that a marketer isn't suspended any more, since a place of the stream that says so.
INSERT INTO suspended_marketers (marketer, reinstated_seq) VALUES ($1, $2)
ON CONFLICT (marketer) DO UPDATE SET reinstated_seq = greatest(suspended_marketers.reinstated_seq, excluded.reinstated_seq);
