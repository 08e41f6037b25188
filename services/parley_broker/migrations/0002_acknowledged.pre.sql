-- Whether a release was acknowledged is known by its participant; its name needs no row of its own any more, since it proves
-- itself.
ALTER TABLE participants ADD COLUMN acknowledged boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN participants.acknowledged IS 'The marketer keeps the release safely: it is off the feed for good. Becomes true, once.';
COMMENT ON COLUMN participants.state IS '1 requested, 2 offered, 3 accepted, 5 finalized, 6 terminated.';
COMMENT ON TABLE acknowledged IS 'Notices that are off the feed, by name alone, so that acknowledging one of them again is no error.';

-- Until now what was finished left the feed by being acknowledged alone.
UPDATE participants AS p SET acknowledged = true
WHERE p.state = 5 AND NOT EXISTS (
    SELECT 1 FROM deliveries AS d
    WHERE d.marketer = p.marketer AND d.exchange_id = p.exchange_id AND d.pseudonym = p.pseudonym AND d.exchange_id <> '');

CREATE INDEX participants_due ON participants (leased_until) WHERE state IN (1, 3);
CREATE INDEX participants_due_of ON participants (marketer, exchange_id, leased_until) WHERE state IN (1, 3);

-- Acknowledges releases, in arrays side by side: takes them off their feeds, and tells of each, the first time.
--
-- It must stay a volatile function of several statements, run on its own in READ COMMITTED: what follows the locks sees the
-- places that were given while they were waited for. One statement that deletes and locks leaves such a release on the feed
-- though it is acknowledged, and it is decided, opened and settled for ever.
CREATE FUNCTION acknowledge(
    marketers text[], exchange_ids text[], pseudonyms text[], event_ids uuid[], envelopes bytea[], event_type text
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
        FROM unnest(marketers, exchange_ids, pseudonyms, event_ids, envelopes)
            AS a (marketer, exchange_id, pseudonym, event_id, envelope)
    ), done AS (
        UPDATE participants AS p SET state = 5, settled = true, acknowledged = true, leased_until = '-infinity' FROM asked AS a
        WHERE p.marketer = a.marketer AND p.exchange_id = a.exchange_id AND p.pseudonym = a.pseudonym AND NOT p.acknowledged
            AND NOT (p.state = 6 AND p.settled)
        RETURNING a.event_id, a.envelope
    )
    INSERT INTO outbox (event_id, type, envelope) SELECT event_id, event_type, envelope FROM done;

    -- 3. Take them off.
    DELETE FROM deliveries AS d USING unnest(marketers, exchange_ids, pseudonyms) AS a (marketer, exchange_id, pseudonym)
    WHERE d.marketer = a.marketer AND d.exchange_id = a.exchange_id AND d.pseudonym = a.pseudonym AND d.exchange_id <> '';
END
$$;
