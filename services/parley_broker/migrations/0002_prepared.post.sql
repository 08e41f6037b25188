-- Values that are prepared wait in memory alone: after a crash they are decided and opened anew, where that is still wanted.
UPDATE participants AS p SET leased_until = '-infinity', state = CASE WHEN over.over AND NOT p.settled THEN 6 ELSE 1 END
FROM (SELECT marketer, exchange_id, lapsed OR cancelled_at IS NOT NULL AS over FROM exchanges) AS over
WHERE p.state = 4 AND over.marketer = p.marketer AND over.exchange_id = p.exchange_id;
ALTER TABLE participants DROP COLUMN permit, DROP COLUMN batch, DROP COLUMN sealed;
DROP INDEX participants_to_do;
DROP INDEX participants_to_do_of;

-- What the version before acknowledged meanwhile.
UPDATE participants AS p SET acknowledged = true
WHERE p.state = 5 AND NOT p.acknowledged AND NOT EXISTS (
    SELECT 1 FROM deliveries AS d
    WHERE d.marketer = p.marketer AND d.exchange_id = p.exchange_id AND d.pseudonym = p.pseudonym AND d.exchange_id <> '');
