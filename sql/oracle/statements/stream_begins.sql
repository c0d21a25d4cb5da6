-- The lowest number of a stream that is still kept.
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :stream_key.
SELECT MIN(stream_seq) AS first_seq FROM events WHERE tenant_id = :tenant_id AND stream_key = :stream_key
