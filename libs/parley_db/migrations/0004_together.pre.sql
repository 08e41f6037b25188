-- Events that tell of many things at once, of which only the statement that writes them knows which came true.

-- An envelope that was serialised without its payload, and the payload behind it: field 7 of parley.common.v1.EventEnvelope, with
-- its length as a varint of four bytes, which any reader takes (protobuf's encoding, "Base 128 Varints").
CREATE FUNCTION with_payload(envelope bytea, payload bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT envelope || set_byte(set_byte(set_byte(set_byte('\x3a00000000'::bytea,
        1, length(payload) & 127 | 128),
        2, length(payload) >> 7 & 127 | 128),
        3, length(payload) >> 14 & 127 | 128),
        4, length(payload) >> 21) || payload
$$;
