-- Events of one stream, the highest number first, after a place (keyset): late ones keep their place.
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :stream_key, then what is wanted of :source, :type, :from_at, :to_at, and of the place
-- :before_seq; last :rows_max.
SELECT id, source, type, stream_key, stream_seq, event_id, id_origin, timestamp_utc, occurred_utc, clock_skew,
       received_utc, processed_utc, schema_version, idempotency_key, payload_hash, trace_id, parent_span_id,
       trace_sampled, payload
  FROM events
 WHERE tenant_id = :tenant_id AND stream_key = :stream_key
   AND source = :source  -- when source
   AND type = :type  -- when type
   AND timestamp_utc >= :from_at  -- when from
   AND timestamp_utc < :to_at  -- when to
   AND stream_seq < :before_seq  -- when after
 ORDER BY stream_seq DESC
 FETCH FIRST :rows_max ROWS ONLY
