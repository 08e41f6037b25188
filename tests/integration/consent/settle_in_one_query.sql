-- What settle must not become: one query that locks, joins and inserts. It waits for the lock, then reads the snapshot from
-- before it waited.
CREATE OR REPLACE FUNCTION settle(batches settle_batch[], releases settle_release[], audit_limit interval)
RETURNS TABLE (ordinal bigint, refusal smallint, salt bytea, detail bytea, artefact text, born_salt bytea, born_detail bytea)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH locked AS MATERIALIZED (
        SELECT customer FROM customers WHERE customer IN (SELECT i.customer FROM unnest(releases) AS i)
        ORDER BY customer FOR UPDATE
    ), judged AS MATERIALIZED (
        SELECT i.ordinality, i.customer, i.release_id, i.consent_id, b.exchange, i.salt, i.detail, k.one_time, CASE
            WHEN i.revision <> c.revision THEN 1
            WHEN k.state <> 5 THEN 2
            ELSE 0 END AS verdict
        FROM locked
        JOIN customers AS c ON c.customer = locked.customer
        JOIN unnest(releases) WITH ORDINALITY AS i ON i.customer = c.customer
        JOIN unnest(batches) WITH ORDINALITY AS b ON b.ordinality = i.batch
        JOIN consents AS k ON k.customer = i.customer AND k.consent_id = i.consent_id
    ), settled AS (
        INSERT INTO settlements (customer, release_id, consent_id, exchange, one_time, salt, detail)
        SELECT customer, release_id, consent_id, exchange, one_time, salt, detail FROM judged WHERE verdict = 0
        ON CONFLICT DO NOTHING
    )
    SELECT ordinality, verdict::smallint, salt, detail, '', NULL::bytea, NULL::bytea FROM judged;
END
$$;
