-- Events of a stream after a number, ascending.
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :stream_key, :after_seq, :rows_max.
SELECT id, source, type, stream_key, stream_seq, event_id, id_origin, timestamp_utc, occurred_utc, clock_skew,
       received_utc, processed_utc, schema_version, idempotency_key, payload_hash, trace_id, parent_span_id,
       trace_sampled, payload
  FROM events
 WHERE tenant_id = :tenant_id AND stream_key = :stream_key AND stream_seq > :after_seq
 ORDER BY stream_seq
 FETCH FIRST :rows_max ROWS ONLY
