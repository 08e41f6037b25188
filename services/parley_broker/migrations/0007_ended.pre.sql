-- What ends with an exchange, by its deadline or its marketer, ends in portions: all at once it may take longer than any statement.
-- What is over already needs no sweep, and isn't rewritten.
ALTER TABLE exchanges ADD COLUMN swept boolean NOT NULL DEFAULT true;
ALTER TABLE exchanges ALTER COLUMN swept SET DEFAULT false;
UPDATE exchanges SET swept = false WHERE NOT lapsed AND cancelled_at IS NULL;
COMMENT ON COLUMN exchanges.lapsed IS 'Its decision deadline has passed.';
COMMENT ON COLUMN exchanges.swept IS 'It has lapsed or was cancelled, and whoever nobody had in hand, or had an offer, has ended.';
ALTER TABLE participants ADD COLUMN taken boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN participants.taken IS 'A worker has had it in hand: a release may have settled that is not noted here. Becomes true.';
CREATE INDEX exchanges_to_sweep ON exchanges (marketer, exchange_id) WHERE (lapsed OR cancelled_at IS NOT NULL) AND NOT swept;

-- Finishes participants whose release was committed, in arrays side by side, whatever overtook them meanwhile, and gives each a
-- place on its marketer's feed, unless it has one or was acknowledged before; answers whom it finished.
--
-- It must stay a volatile function of several statements, run on its own in READ COMMITTED, as acknowledge() must: what follows the
-- locks sees the places that were taken away while they were waited for. One statement that does both finishes a release whose
-- customer has paused meanwhile and gives it no place, so that it never comes, whoever resumes.
CREATE FUNCTION finish(
    marketers text[], exchange_ids text[], pseudonyms text[], release_ids text[], at timestamptz
) RETURNS TABLE (marketer text, exchange_id text, pseudonym text, release_id text)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    finished text[][];
BEGIN
    -- 1. Lock, in one order, so that no two writers wait for each other.
    PERFORM 1 FROM participants AS p
    JOIN unnest(marketers, exchange_ids, pseudonyms) AS a (marketer, exchange_id, pseudonym) USING (marketer, exchange_id, pseudonym)
    ORDER BY p.marketer, p.exchange_id, p.pseudonym FOR UPDATE OF p;

    -- 2. Finish them, in the order in which they came.
    WITH done AS (
        UPDATE participants AS p SET state = 5, settled = true, release_id = a.release_id, leased_until = '-infinity'
        FROM unnest(marketers, exchange_ids, pseudonyms, release_ids)
            WITH ORDINALITY AS a (marketer, exchange_id, pseudonym, release_id, nth)
        WHERE p.marketer = a.marketer AND p.exchange_id = a.exchange_id AND p.pseudonym = a.pseudonym AND NOT p.acknowledged
            AND (p.state IN (1, 3) OR (p.state = 6 AND NOT p.settled))
        RETURNING p.marketer, p.exchange_id, p.pseudonym, p.release_id, a.nth
    )
    SELECT array_agg(ARRAY[d.marketer, d.exchange_id, d.pseudonym, d.release_id] ORDER BY d.nth) INTO finished FROM done AS d;
    IF finished IS NULL THEN
        RETURN;
    END IF;

    -- 3. Give places to those that have none.
    WITH done AS (
        SELECT finished[n][1] AS marketer, finished[n][2] AS exchange_id, finished[n][3] AS pseudonym, n
        FROM generate_subscripts(finished, 1) AS n
    ), unplaced AS (
        SELECT d.*, row_number() OVER (PARTITION BY d.marketer ORDER BY d.n) AS place, count(*) OVER (PARTITION BY d.marketer) AS many
        FROM done AS d
        WHERE (  -- EXISTS may be answered from all there are, or by going through them for each
            SELECT true FROM deliveries AS t WHERE t.exchange_id <> ''
                AND t.marketer = d.marketer AND t.exchange_id = d.exchange_id AND t.pseudonym = d.pseudonym LIMIT 1) IS NULL
    ), places AS (
        INSERT INTO feeds (marketer, last_seq) SELECT DISTINCT u.marketer, u.many FROM unplaced AS u ORDER BY u.marketer
        ON CONFLICT (marketer) DO UPDATE SET last_seq = feeds.last_seq + excluded.last_seq
        RETURNING feeds.marketer, feeds.last_seq
    )
    INSERT INTO deliveries (marketer, seq, delivery_id, exchange_id, pseudonym, payload, created_at)
    SELECT u.marketer, f.last_seq - u.many + u.place, u.exchange_id || u.pseudonym, u.exchange_id, u.pseudonym, '', at
    FROM unplaced AS u JOIN places AS f USING (marketer)
    ON CONFLICT DO NOTHING;

    RETURN QUERY SELECT finished[n][1], finished[n][2], finished[n][3], finished[n][4] FROM generate_subscripts(finished, 1) AS n;
END
$$;
