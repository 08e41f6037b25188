-- name: exchanges_create
-- Make exchanges and answer their requests, each once for its caller and request id: answers those whose requests are new.
WITH asked AS (
    SELECT DISTINCT ON (marketer, request_id) *
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::text[], $6::bytea[], $7::bytea[], $8::text[],
        $9::timestamptz[], $10::timestamptz[], $11::boolean[])
        AS a (marketer, request_id, fingerprint, response, exchange_id, terms, audience, offer_text, decision_deadline, created_at,
            matched)
), claimed AS (
    INSERT INTO requests (caller, method, request_id, fingerprint, response)
    SELECT marketer, $12, request_id, fingerprint, response FROM asked ORDER BY marketer, request_id
    ON CONFLICT DO NOTHING
    RETURNING caller AS marketer, request_id
), made AS (
    INSERT INTO exchanges (marketer, exchange_id, terms, audience, offer_text, decision_deadline, created_at, matched)
    SELECT a.marketer, a.exchange_id, a.terms, a.audience, a.offer_text, a.decision_deadline, a.created_at, a.matched
    FROM asked AS a JOIN claimed USING (marketer, request_id)
    RETURNING marketer, exchange_id
), joined AS (
    INSERT INTO participants (marketer, exchange_id, pseudonym, state, leased_until, taken)
    SELECT i.marketer, k.exchange_id, i.pseudonym, 1, clock_timestamp() + k.lease, k.lease > interval '0'
    FROM unnest($13::text[], $14::text[], $15::text[], $16::interval[]) AS k (marketer, exchange_id, pseudonym, lease)
    JOIN made ON made.marketer = k.marketer AND made.exchange_id = k.exchange_id
    JOIN introductions AS i ON i.marketer = k.marketer AND i.pseudonym = k.pseudonym
    ON CONFLICT DO NOTHING
)
SELECT marketer, exchange_id FROM made;

-- name: introductions_find
-- The references for customers whom the marketer knows.
SELECT pseudonym, consent_ref, vault_ref, audit_ref FROM introductions WHERE marketer = $1 AND pseudonym = ANY($2);

-- name: exchange_find
-- One exchange of the marketer's.
SELECT exchange_id, terms, audience, offer_text, decision_deadline, created_at, cancelled_at FROM exchanges
WHERE marketer = $1 AND exchange_id = $2;

-- name: exchanges_page
-- A page of the marketer's exchanges, newest first.
SELECT exchange_id, terms, audience, offer_text, decision_deadline, created_at, cancelled_at FROM exchanges
WHERE marketer = $1 AND (created_at, exchange_id) < ($2, $3)
ORDER BY created_at DESC, exchange_id DESC LIMIT $4;

-- name: exchange_cancel
-- End an exchange; a second time keeps the first.
UPDATE exchanges SET cancelled_at = coalesce(cancelled_at, $3), matched = true WHERE marketer = $1 AND exchange_id = $2;

-- name: exchanges_lapse
-- Mark some of what its decision deadline has overtaken: nobody is looked for any more, and most have nobody left to end.
UPDATE exchanges AS e SET lapsed = true, matched = true, swept = (
    SELECT true FROM participants AS p
    WHERE p.marketer = e.marketer AND p.exchange_id = e.exchange_id AND p.state IN (1, 2) LIMIT 1) IS NULL
WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM exchanges WHERE NOT lapsed AND decision_deadline <= $1
    ORDER BY decision_deadline LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED));

-- name: exchange_hold
-- Whether an exchange is over; it stays as it is until the transaction ends.
SELECT lapsed OR cancelled_at IS NOT NULL FROM exchanges WHERE marketer = $1 AND exchange_id = $2 FOR SHARE;

-- name: exchanges_to_sweep
-- Some exchanges that are over, and may have participants who aren't.
SELECT marketer, exchange_id FROM exchanges
WHERE (lapsed OR cancelled_at IS NOT NULL) AND NOT swept ORDER BY marketer, exchange_id LIMIT $1;

-- name: participants_sweep
-- Of so many of an exchange's participants, those behind $3, end the offers and whoever nobody has had in hand; answers the last of
-- these, or null behind the last of all.
WITH portion AS (
    SELECT pseudonym FROM participants WHERE marketer = $1 AND exchange_id = $2 AND pseudonym > $3 ORDER BY pseudonym LIMIT $4
), ended AS (
    UPDATE participants AS p SET state = 6 FROM portion
    WHERE p.marketer = $1 AND p.exchange_id = $2 AND p.pseudonym = portion.pseudonym AND NOT p.settled
        AND (p.state = 2 OR (p.state = 1 AND NOT p.taken))
)
SELECT max(pseudonym) FROM portion;

-- name: exchange_swept
-- Note that an exchange has been swept.
UPDATE exchanges SET swept = true WHERE marketer = $1 AND exchange_id = $2;

-- name: exchange_lease
-- Take the exchange that has waited longest for customers to be found, of the first marketer after $2 that has any.
WITH RECURSIVE marketers AS (  -- from one to the next, as for participants
    (SELECT marketer FROM exchanges WHERE NOT matched AND cancelled_at IS NULL AND marketer > $2 ORDER BY marketer LIMIT 1)
    UNION ALL
    SELECT (
        SELECT e.marketer FROM exchanges AS e WHERE NOT e.matched AND e.cancelled_at IS NULL AND e.marketer > m.marketer
        ORDER BY e.marketer LIMIT 1)
    FROM marketers AS m WHERE m.marketer IS NOT NULL
), one AS (
    SELECT m.marketer FROM marketers AS m
    WHERE (
        SELECT true FROM exchanges AS e
        WHERE e.marketer = m.marketer AND NOT e.matched AND e.cancelled_at IS NULL AND e.leased_until < statement_timestamp() LIMIT 1)
    LIMIT 1
)
UPDATE exchanges SET leased_until = clock_timestamp() + $1
WHERE ctid = ANY (ARRAY(
    SELECT due.ctid FROM one CROSS JOIN LATERAL (
        SELECT d.ctid FROM exchanges AS d
        WHERE d.marketer = one.marketer AND NOT d.matched AND d.cancelled_at IS NULL AND d.leased_until < statement_timestamp()
        ORDER BY d.leased_until LIMIT 1 FOR UPDATE SKIP LOCKED
    ) AS due))
RETURNING marketer, exchange_id, terms, audience, offer_text, decision_deadline, created_at, cancelled_at, match_token;

-- name: exchange_advance
-- Note how far matching has come, and let go: until every other that waits has had its turn.
UPDATE exchanges SET match_token = $3, matched = matched OR $4, leased_until = clock_timestamp()
WHERE marketer = $1 AND exchange_id = $2;

-- name: introductions_insert
-- Keep what identity said about customers new to a marketer, in one order, so that no two writers wait for each other.
INSERT INTO introductions (marketer, pseudonym, consent_ref, vault_ref, audit_ref, identity_ref)
SELECT $1, i.* FROM unnest($2::text[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[])
    AS i (pseudonym, consent_ref, vault_ref, audit_ref, identity_ref)
ORDER BY i.pseudonym
ON CONFLICT DO NOTHING;

-- name: participants_insert
-- Add customers to an exchange that isn't over, and won't be until they are in; unknown pseudonyms are nobody's.
INSERT INTO participants (marketer, exchange_id, pseudonym, state, leased_until)
SELECT i.marketer, e.exchange_id, i.pseudonym, 1, clock_timestamp()
FROM introductions AS i JOIN exchanges AS e ON e.marketer = i.marketer AND e.exchange_id = $2
WHERE i.marketer = $1 AND i.pseudonym = ANY($3) AND e.cancelled_at IS NULL AND NOT e.lapsed
FOR NO KEY UPDATE OF e
ON CONFLICT DO NOTHING;

-- name: participants_lease
-- Take those who have waited longest for something to be done, of the first marketer after $4 that has any, but for some.
WITH RECURSIVE marketers AS (  -- from one to the next, past all that each of them has
    (SELECT marketer FROM participants WHERE state IN (1, 3) AND marketer > $4 ORDER BY marketer LIMIT 1)
    UNION ALL
    SELECT (SELECT p.marketer FROM participants AS p WHERE p.state IN (1, 3) AND p.marketer > m.marketer ORDER BY p.marketer LIMIT 1)
    FROM marketers AS m WHERE m.marketer IS NOT NULL
), one AS (
    SELECT m.marketer FROM marketers AS m
    WHERE m.marketer <> ALL($3::text[]) AND (
        SELECT true FROM participants AS p
        WHERE p.marketer = m.marketer AND p.state IN (1, 3) AND p.leased_until < statement_timestamp() LIMIT 1)
    LIMIT 1
)
UPDATE participants AS p SET leased_until = clock_timestamp() + $2, taken = true
FROM introductions AS i
WHERE p.ctid = ANY (ARRAY(  -- joined by their keys they may be looked for among all there are
        SELECT due.ctid FROM one CROSS JOIN LATERAL (
            SELECT d.ctid FROM participants AS d
            WHERE d.marketer = one.marketer AND d.state IN (1, 3) AND d.leased_until < statement_timestamp()
            ORDER BY d.leased_until LIMIT $1 FOR UPDATE SKIP LOCKED
        ) AS due))
    AND i.marketer = p.marketer AND i.pseudonym = p.pseudonym
RETURNING p.marketer, p.exchange_id, p.pseudonym, p.state, p.settled, p.acknowledged,
    i.consent_ref, i.vault_ref, i.audit_ref;

-- name: participants_keep
-- Begin the lease anew of those that are in hand.
UPDATE participants AS p SET leased_until = clock_timestamp() + $4
FROM unnest($1::text[], $2::text[], $3::text[]) AS d (marketer, exchange_id, pseudonym)
WHERE p.marketer = d.marketer AND p.exchange_id = d.exchange_id AND p.pseudonym = d.pseudonym
    AND p.state IN (1, 3) AND p.leased_until BETWEEN clock_timestamp() AND clock_timestamp() + $4;

-- name: participant_find
-- One participant.
SELECT p.marketer, p.exchange_id, p.pseudonym, p.state, p.settled, p.acknowledged, i.consent_ref, i.vault_ref, i.audit_ref
FROM participants AS p JOIN introductions AS i USING (marketer, pseudonym)
WHERE p.marketer = $1 AND p.exchange_id = $2 AND p.pseudonym = $3;

-- name: participants_of_deliveries
-- The participants whose releases are to be sent.
SELECT p.marketer, p.exchange_id, p.pseudonym, p.state, p.settled, p.acknowledged, i.consent_ref, i.vault_ref, i.audit_ref
FROM unnest($2::text[], $3::text[]) AS d (exchange_id, pseudonym)
JOIN participants AS p ON p.marketer = $1 AND p.exchange_id = d.exchange_id AND p.pseudonym = d.pseudonym
JOIN introductions AS i ON i.marketer = p.marketer AND i.pseudonym = p.pseudonym;

-- name: participants_decided
-- Move participants on from being decided, unless something overtook them, and let go; answers who was moved. Offers end with their
-- exchange: where it is over ($5), nobody would end them.
UPDATE participants AS p SET state = CASE WHEN d.state = 2 AND $5 THEN 6 ELSE d.state END, leased_until = '-infinity'
FROM unnest($3::text[], $4::smallint[]) AS d (pseudonym, state)
WHERE p.marketer = $1 AND p.exchange_id = $2 AND p.pseudonym = d.pseudonym AND p.state IN (1, 3)
    AND NOT (p.state = 3 AND d.state = 2)
RETURNING p.pseudonym;

-- name: participants_postpone
-- Leave participants as they are for a while: their customer has said neither yes nor no; answers who was left.
UPDATE participants SET leased_until = clock_timestamp() + $4
WHERE marketer = $1 AND exchange_id = $2 AND pseudonym = ANY($3) AND state IN (1, 3)
RETURNING pseudonym;

-- name: participants_reopen
-- Take releases that are still on the feed through every step anew; workers leave them alone meanwhile. One that was acknowledged
-- while its lock was waited for may look as if it were still there.
UPDATE participants AS p SET state = 1, leased_until = clock_timestamp() + $4
FROM unnest($2::text[], $3::text[]) AS d (exchange_id, pseudonym)
WHERE p.marketer = $1 AND p.exchange_id = d.exchange_id AND p.pseudonym = d.pseudonym AND p.state = 5
    AND NOT p.acknowledged AND EXISTS (
        SELECT 1 FROM deliveries AS there WHERE there.exchange_id <> ''
            AND there.marketer = p.marketer AND there.exchange_id = p.exchange_id AND there.pseudonym = p.pseudonym);

-- name: participants_states
-- How far these have come, unless their exchange was cancelled since it was read as it was then. All of them: asked for by state, they
-- would be looked for among everybody who is to be decided.
SELECT p.pseudonym, p.state FROM exchanges AS e JOIN participants AS p ON p.marketer = e.marketer AND p.exchange_id = e.exchange_id
WHERE e.marketer = $1 AND e.exchange_id = $2 AND e.cancelled_at IS NOT DISTINCT FROM $4 AND p.pseudonym = ANY($3);

-- name: participants_finish
-- Finish participants whose release was committed; see the function.
SELECT marketer, exchange_id, pseudonym, release_id FROM finish($1, $2, $3, $4, $5);

-- name: participants_unsettled
-- Let participants go where a refusal to settle leads, or to be decided again; answers who was still to be settled.
UPDATE participants AS p SET state = CASE d.state WHEN 1 THEN p.state ELSE d.state END, leased_until = '-infinity'
FROM unnest($3::text[], $4::smallint[]) AS d (pseudonym, state)
WHERE p.marketer = $1 AND p.exchange_id = $2 AND p.pseudonym = d.pseudonym AND p.state IN (1, 3)
RETURNING p.pseudonym;

-- name: participant_accepted
-- Note that a customer accepted: to be decided again. In time, though the deadline may have overtaken the news of it.
UPDATE participants AS p SET state = 3, leased_until = '-infinity'
WHERE marketer = $1 AND exchange_id = $2 AND pseudonym = $3 AND (
    state IN (1, 2) OR (state = 6 AND NOT settled AND (
        SELECT cancelled_at FROM exchanges AS e WHERE e.marketer = p.marketer AND e.exchange_id = p.exchange_id) IS NULL));

-- name: feed_places
-- Lock a marketer's feed and take places in it; answers the last one taken.
INSERT INTO feeds (marketer, last_seq) VALUES ($1, $2)
ON CONFLICT (marketer) DO UPDATE SET last_seq = feeds.last_seq + $2 RETURNING last_seq;

-- name: notice_insert
-- Put a notice on the feed.
INSERT INTO deliveries (marketer, seq, delivery_id, payload, created_at) VALUES ($1, $2, $3, $4, $5);

-- name: deliveries_behind
-- What is on the feed behind a place and not sent in this call, oldest first.
SELECT seq, delivery_id, exchange_id, pseudonym, payload FROM deliveries
WHERE marketer = $1 AND seq > $2 AND seq <> ALL($3::bigint[]) ORDER BY seq LIMIT $4;

-- name: deliveries_void
-- Take releases of an exchange off the feed that may not be sent any more; who was sent one before may still acknowledge it.
DELETE FROM deliveries WHERE marketer = $1 AND exchange_id = $2 AND pseudonym = ANY($3) AND exchange_id <> '';

-- name: releases_acknowledge
-- Take releases off their feeds that were sent and are kept, and tell of those that weren't before.
SELECT acknowledge($1, $2, $3, $4, $5, $6, $7, $8);

-- name: notices_acknowledge
-- Take notices off the feed and remember their names; answers those that were there.
WITH gone AS (
    DELETE FROM deliveries WHERE marketer = $1 AND delivery_id = ANY($2) AND exchange_id = '' RETURNING delivery_id
), kept AS (
    INSERT INTO acknowledged (marketer, delivery_id) SELECT $1, delivery_id FROM gone ON CONFLICT DO NOTHING
)
SELECT delivery_id FROM gone;

-- name: acknowledged_find
-- Which of these were acknowledged before.
SELECT delivery_id FROM acknowledged WHERE marketer = $1 AND delivery_id = ANY($2);
