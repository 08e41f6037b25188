-- As before, but rows get their places by key. What is joined to all that wait may be gone through for each of them: where an outbox
-- had last been looked at by the planner while it was empty, a thousand of forty thousand took five seconds instead of a fiftieth of
-- one, just when there was much to catch up with.
CREATE OR REPLACE FUNCTION relay_step(most bigint, most_bytes bigint)
RETURNS TABLE (
    last bigint, published bigint, acked bigint, numbered bigint, stream_seq bigint, event_id uuid, envelope bytea
)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    head stream_head;
    oldest bigint[];
    fresh bigint;
BEGIN
    SELECT * INTO head FROM stream_head FOR UPDATE;
    oldest := ARRAY(SELECT id FROM outbox WHERE stream_seq IS NULL ORDER BY id LIMIT most);
    fresh := cardinality(oldest);
    IF fresh > 0 THEN
        UPDATE outbox SET stream_seq = head.last_seq + place  -- all of them: nobody deletes what has no place
        FROM unnest(oldest) WITH ORDINALITY AS waiting (id, place)
        WHERE outbox.id = waiting.id AND outbox.id = ANY (oldest);
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
