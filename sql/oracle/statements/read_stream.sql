-- What is known of a stream.
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :stream_key.
SELECT applied_seq, last_seen_utc, last_type FROM stream_state WHERE tenant_id = :tenant_id AND stream_key = :stream_key
