-- Settling, mended in three ways. A suspension that is heard of after what lifted it, from a reader that died in between, is lifted:
-- both places stay written down, where a reinstatement left nothing that a late suspension could be told from a new one by. A release
-- is settled again under the consent that it was made under and no other: its values name that one. And who settles under consents
-- that were given before doesn't go through the births of others.
ALTER TABLE suspended_marketers ADD COLUMN reinstated_seq bigint NOT NULL DEFAULT 0;
UPDATE suspended_marketers SET seq = 1 WHERE seq = 0;  -- from before places were written down; the first is 1
COMMENT ON TABLE suspended_marketers IS 'Marketers that the operator has suspended or reinstated: suspended if that was said last.';
COMMENT ON COLUMN suspended_marketers.seq IS 'Where identity''s stream said last that it is suspended; 0: never. Only grows.';
COMMENT ON COLUMN suspended_marketers.reinstated_seq IS 'Where it said last that it isn''t. Only grows.';

-- Commits releases or refuses them; answers, in the order asked, a parley.consent.v1.SettleRefusal (0: settled) with what
-- opens the receipts.
--
-- It must stay a volatile function of several statements, run on its own in READ COMMITTED: every statement takes a new
-- snapshot, so what follows the lock sees what a withdrawal committed while the lock was waited for. One query that locks
-- and joins reads the old snapshot and lets withdrawn consents through.
CREATE OR REPLACE FUNCTION settle(batches settle_batch[], releases settle_release[], audit_limit interval)
RETURNS TABLE (ordinal bigint, refusal smallint, salt bytea, detail bytea, artefact text, born_salt bytea, born_detail bytea)
LANGUAGE plpgsql VOLATILE
-- Whoever settles together waits for one another's customers: not for long.
SET lock_timeout = '500ms'
AS $$
#variable_conflict use_column
DECLARE
    behind boolean;
    verdicts smallint[];
    firsts bigint[];
BEGIN
    -- 1. Lock the customers' rows, in order.
    PERFORM 1 FROM customers WHERE customer = ANY (ARRAY(SELECT i.customer FROM unnest(releases) AS i))
    ORDER BY customer FOR UPDATE;

    -- 2. Read.
    SELECT EXISTS (
        SELECT 1 FROM (SELECT occurred_at FROM outbox WHERE stream_seq IS NULL ORDER BY id LIMIT 1) AS unnumbered
        WHERE occurred_at < clock_timestamp() - audit_limit
    ) OR EXISTS (
        SELECT 1 FROM (
            SELECT occurred_at FROM outbox
            WHERE stream_seq > (SELECT logged_seq FROM audit_progress)
            ORDER BY stream_seq LIMIT 1
        ) AS unlogged
        WHERE occurred_at < clock_timestamp() - audit_limit
    ) INTO behind;

    SELECT array_agg(judged.verdict ORDER BY judged.ordinality) INTO verdicts FROM (
        SELECT i.ordinality, CASE
            WHEN behind THEN 5
            WHEN i.revision IS DISTINCT FROM c.revision THEN 1
            WHEN c.objected_at IS NOT NULL THEN 2
            WHEN (SELECT m.seq > m.reinstated_seq FROM suspended_marketers AS m WHERE m.marketer = b.marketer LIMIT 1) THEN 2
            WHEN k.consent_id IS NULL THEN CASE
                WHEN i.rule_id = '' OR r.rule_id IS NULL OR r.ended_at IS NOT NULL THEN 2
                WHEN b.valid_until <= clock_timestamp() THEN 4
                WHEN r.one_time AND (
                    SELECT true FROM consents AS o
                    JOIN settlements AS p ON p.customer = o.customer AND p.consent_id = o.consent_id
                    WHERE o.customer = i.customer AND o.rule_id = i.rule_id AND o.marketer = b.marketer LIMIT 1) THEN 3
                ELSE 0 END
            WHEN k.state = 6 THEN 7
            WHEN k.state <> 5 THEN 2
            WHEN k.valid_until <= clock_timestamp() THEN 4
            ELSE 0 END AS verdict
        FROM unnest(releases) WITH ORDINALITY AS i
        JOIN unnest(batches) WITH ORDINALITY AS b ON b.ordinality = i.batch
        LEFT JOIN LATERAL (
            SELECT revision, objected_at FROM customers WHERE customer = i.customer LIMIT 1) AS c ON true
        LEFT JOIN LATERAL (
            SELECT consent_id FROM settlements WHERE customer = i.customer AND release_id = i.release_id LIMIT 1) AS s ON true
        LEFT JOIN LATERAL (
            SELECT consent_id, state, valid_until FROM consents
            WHERE customer = i.customer AND consent_id = coalesce(s.consent_id, i.consent_id) LIMIT 1) AS k ON true
        LEFT JOIN LATERAL (
            SELECT rule_id, ended_at, one_time FROM rules
            WHERE customer = i.customer AND rule_id = i.rule_id LIMIT 1) AS r ON true
    ) AS judged;

    -- A release that is asked for twice in one call is one: the first asking that may settle stands for it.
    SELECT array_agg(each.ordinality) INTO firsts FROM (
        SELECT DISTINCT ON (i.customer, i.release_id) i.ordinality FROM unnest(releases) WITH ORDINALITY AS i
        WHERE verdicts[i.ordinality] = 0
        ORDER BY i.customer, i.release_id, i.ordinality
    ) AS each;

    IF EXISTS (SELECT FROM unnest(releases) AS i WHERE i.rule_id <> '') THEN
        -- Nor does one call give two births to a rule for one time: one release of each marketer's stays.
        SELECT array_agg(each.ordinality) INTO firsts FROM (
            SELECT i.ordinality, r.one_time AND s.release_id IS NULL AS once, row_number() OVER (
                PARTITION BY i.customer, i.rule_id, b.marketer, s.release_id IS NULL ORDER BY i.ordinality) AS place
            FROM unnest(releases) WITH ORDINALITY AS i
            JOIN unnest(batches) WITH ORDINALITY AS b ON b.ordinality = i.batch
            LEFT JOIN LATERAL (
                SELECT one_time FROM rules WHERE customer = i.customer AND rule_id = i.rule_id LIMIT 1) AS r ON true
            LEFT JOIN LATERAL (
                SELECT release_id FROM settlements WHERE customer = i.customer AND release_id = i.release_id LIMIT 1) AS s ON true
            WHERE i.ordinality = ANY (firsts)
        ) AS each
        WHERE each.place = 1 OR each.once IS NOT TRUE;

        -- 3. A consent that rests on a rule is born here; an offer of the same exchange is void.
        WITH born AS (
            INSERT INTO consents (customer, consent_id, state, marketer, marketer_name, marketer_entity, marketer_contact,
                marketer_level, pseudonym, exchange, terms, offer_text, one_time, rule_id, artefact, salt, detail,
                decision_deadline, valid_until, created_at, agreed_at)
            SELECT i.customer, i.consent_id, 5, b.marketer, b.marketer_name, b.marketer_entity, b.marketer_contact,
                b.marketer_level, i.pseudonym, b.exchange, b.terms, '', b.one_time, i.rule_id, i.artefact, i.born_salt,
                i.born_detail, b.valid_until, b.valid_until, clock_timestamp(), clock_timestamp()
            FROM unnest(releases) WITH ORDINALITY AS i
            JOIN unnest(batches) WITH ORDINALITY AS b ON b.ordinality = i.batch
            WHERE i.ordinality = ANY (firsts) AND i.rule_id <> '' AND (
                SELECT true FROM settlements AS s WHERE s.customer = i.customer AND s.release_id = i.release_id LIMIT 1) IS NULL
            ON CONFLICT DO NOTHING
            RETURNING customer, consent_id, exchange
        ), voided AS (
            UPDATE consents AS k SET state = 9 FROM born
            WHERE k.ctid = (
                SELECT o.ctid FROM consents AS o
                WHERE o.customer = born.customer AND o.exchange = born.exchange AND o.rule_id = '' AND o.state IN (1, 2))
        )
        INSERT INTO outbox (event_id, type, envelope)
        SELECT b.born_event_id, 'parley.consent.v1.ConsentBorn', with_payload(b.born_event, string_agg(i.born_note, ''::bytea))
        FROM unnest(releases) WITH ORDINALITY AS i
        JOIN unnest(batches) WITH ORDINALITY AS b ON b.ordinality = i.batch
        JOIN born ON born.customer = i.customer AND born.consent_id = i.consent_id
        WHERE i.ordinality = ANY (firsts)
        GROUP BY b.born_event_id, b.born_event;
    END IF;

    -- 4. The settlements. A second asking inserts nothing; a second use of a one-time consent can't.
    WITH settled AS (
        INSERT INTO settlements (customer, release_id, consent_id, exchange, one_time, salt, detail)
        SELECT i.customer, i.release_id, i.consent_id, b.exchange, k.one_time, i.salt, i.detail
        FROM unnest(releases) WITH ORDINALITY AS i
        JOIN unnest(batches) WITH ORDINALITY AS b ON b.ordinality = i.batch
        JOIN LATERAL (
            SELECT one_time FROM consents WHERE customer = i.customer AND consent_id = i.consent_id LIMIT 1) AS k ON true
        WHERE i.ordinality = ANY (firsts)
        ON CONFLICT DO NOTHING
        RETURNING customer, release_id
    )
    INSERT INTO outbox (event_id, type, envelope)
    SELECT b.event_id, 'parley.consent.v1.ReleaseSettled', with_payload(b.event, string_agg(i.note, ''::bytea))
    FROM unnest(releases) WITH ORDINALITY AS i
    JOIN unnest(batches) WITH ORDINALITY AS b ON b.ordinality = i.batch
    JOIN settled ON settled.customer = i.customer AND settled.release_id = i.release_id
    WHERE i.ordinality = ANY (firsts)
    GROUP BY b.event_id, b.event;

    -- 5. What stands.
    RETURN QUERY
    SELECT i.ordinality,
        (CASE
            WHEN verdicts[i.ordinality] = 0 AND s.release_id IS NULL THEN 3
            WHEN s.consent_id <> i.consent_id THEN 1
            ELSE verdicts[i.ordinality] END)::smallint,
        s.salt, s.detail, k.artefact,
        CASE WHEN k.rule_id <> '' THEN k.salt END, CASE WHEN k.rule_id <> '' THEN k.detail END
    FROM unnest(releases) WITH ORDINALITY AS i
    LEFT JOIN LATERAL (
        SELECT release_id, consent_id, salt, detail FROM settlements
        WHERE customer = i.customer AND release_id = i.release_id AND verdicts[i.ordinality] = 0 LIMIT 1) AS s ON true
    LEFT JOIN LATERAL (
        SELECT artefact, rule_id, salt, detail FROM consents
        WHERE customer = i.customer AND consent_id = s.consent_id LIMIT 1) AS k ON true
    ORDER BY i.ordinality;
END
$$;
