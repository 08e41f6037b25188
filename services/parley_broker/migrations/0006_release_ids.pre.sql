-- What was released is kept by the id that consent gave it, as everybody else knows it.
ALTER TABLE participants ADD COLUMN release_id text NOT NULL DEFAULT '';
COMMENT ON COLUMN participants.release_id IS
    'Consent''s id for the release; empty where there is none, or an earlier version finished it. Becomes set, once.';

-- Acknowledges releases, in arrays side by side: takes them off their feeds, and tells of all that were new in one event, whose
-- envelope comes without its payload. Notes are each release's part of that. A name of an earlier version brings no release id.
--
-- It must stay a volatile function of several statements, run on its own in READ COMMITTED: what follows the locks sees the
-- places that were given while they were waited for. One statement that deletes and locks leaves such a release on the feed
-- though it is acknowledged, and it is decided, opened and settled for ever.
CREATE FUNCTION acknowledge(
    marketers text[], exchange_ids text[], pseudonyms text[], release_ids text[], notes bytea[],
    event_id uuid, event bytea, event_type text
) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    -- 1. Lock, in one order, so that no two writers wait for each other.
    PERFORM 1 FROM participants AS p
    JOIN unnest(marketers, exchange_ids, pseudonyms) AS a (marketer, exchange_id, pseudonym) USING (marketer, exchange_id, pseudonym)
    ORDER BY p.marketer, p.exchange_id, p.pseudonym FOR UPDATE OF p;

    -- 2. Note it, and tell. Who was forgotten since is nobody's any more.
    WITH asked AS (
        SELECT DISTINCT ON (marketer, exchange_id, pseudonym) *
        FROM unnest(marketers, exchange_ids, pseudonyms, release_ids, notes)
            AS a (marketer, exchange_id, pseudonym, release_id, note)
        ORDER BY marketer, exchange_id, pseudonym, release_id DESC
    ), done AS (
        UPDATE participants AS p
        SET state = 5, settled = true, acknowledged = true, leased_until = '-infinity',
            release_id = greatest(p.release_id, a.release_id)
        FROM asked AS a
        WHERE p.marketer = a.marketer AND p.exchange_id = a.exchange_id AND p.pseudonym = a.pseudonym AND NOT p.acknowledged
            AND NOT (p.state = 6 AND p.settled)
        RETURNING a.note
    )
    INSERT INTO outbox (event_id, type, envelope)
    SELECT acknowledge.event_id, event_type, with_payload(event, string_agg(note, ''::bytea)) FROM done HAVING count(*) > 0;

    -- 3. Take them off.
    DELETE FROM deliveries AS d USING unnest(marketers, exchange_ids, pseudonyms) AS a (marketer, exchange_id, pseudonym)
    WHERE d.marketer = a.marketer AND d.exchange_id = a.exchange_id AND d.pseudonym = a.pseudonym AND d.exchange_id <> '';
END
$$;
