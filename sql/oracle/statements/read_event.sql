-- The newest event of a tenant with this id: two sources may use one.
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :event_id.
SELECT id, source, type, stream_key, stream_seq, event_id, id_origin, timestamp_utc, occurred_utc, clock_skew,
       received_utc, processed_utc, schema_version, idempotency_key, payload_hash, trace_id, parent_span_id,
       trace_sampled, payload
  FROM events
 WHERE tenant_id = :tenant_id AND event_id = :event_id
 ORDER BY id DESC
 FETCH FIRST 1 ROWS ONLY
