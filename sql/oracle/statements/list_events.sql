-- Events of a tenant, the newest first by the time that orders them, after a place (keyset).
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, then what is wanted of :source, :type, :from_at, :to_at, and of the place
-- :before_at, :same_at (the same again), :before_id; last :rows_max.
SELECT id, source, type, stream_key, stream_seq, event_id, id_origin, timestamp_utc, occurred_utc, clock_skew,
       received_utc, processed_utc, schema_version, idempotency_key, payload_hash, trace_id, parent_span_id,
       trace_sampled, payload
  FROM events
 WHERE tenant_id = :tenant_id
   AND source = :source  -- when source
   AND type = :type  -- when type
   AND timestamp_utc >= :from_at  -- when from
   AND timestamp_utc < :to_at  -- when to
   AND (timestamp_utc < :before_at OR (timestamp_utc = :same_at AND id < :before_id))  -- when after
 ORDER BY timestamp_utc DESC, id DESC
 FETCH FIRST :rows_max ROWS ONLY
