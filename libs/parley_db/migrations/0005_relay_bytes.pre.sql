-- An event may tell of hundreds of things: a step of the relay ends by bytes, too.

-- Gives places to the rows that have none, in any order of commits, so that a slow transaction is not skipped. Answers how far the
-- stream has come, how many rows got places just now, and the next rows to publish of those that had theirs before: theirs alone
-- are sure to be committed. There is one row at least; without rows to publish its stream_seq is null.
CREATE FUNCTION relay_step(most bigint, most_bytes bigint)
RETURNS TABLE (
    last bigint, published bigint, acked bigint, numbered bigint, stream_seq bigint, event_id uuid, envelope bytea
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    head stream_head;
    fresh bigint;
BEGIN
    SELECT * INTO head FROM stream_head FOR UPDATE;
    WITH unnumbered AS MATERIALIZED (
        SELECT id, row_number() OVER (ORDER BY id) AS place
        FROM (SELECT id FROM outbox WHERE stream_seq IS NULL ORDER BY id LIMIT most) AS oldest
    )
    UPDATE outbox SET stream_seq = head.last_seq + place FROM unnumbered WHERE outbox.id = unnumbered.id;
    GET DIAGNOSTICS fresh = ROW_COUNT;
    IF fresh > 0 THEN
        UPDATE stream_head SET last_seq = head.last_seq + fresh;
    END IF;
    RETURN QUERY
    SELECT head.last_seq + fresh, head.published_seq, head.acked_seq, fresh, next.stream_seq, next.event_id, next.envelope
    FROM (SELECT) AS one
    LEFT JOIN LATERAL (
        SELECT o.stream_seq, o.event_id, o.envelope,
            sum(length(o.envelope)) OVER (ORDER BY o.stream_seq) - length(o.envelope) AS before
        FROM outbox AS o
        WHERE o.stream_seq > head.published_seq AND o.stream_seq <= head.last_seq ORDER BY o.stream_seq LIMIT most
    ) AS next ON next.before < most_bytes
    ORDER BY next.stream_seq;
END
$$;
