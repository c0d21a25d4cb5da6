-- Keeps an event under the number that it got at acceptance.
-- Two instances at once: an event is in one message, and a message in one transaction. One that is there already was
-- applied before (ORA-00001 on its stream and number), and is passed over.
-- Parameters: :tenant_id, :source, :type, :stream_key, :stream_seq, :event_id, :id_origin, :timestamp_utc,
-- :occurred_utc, :clock_skew, :received_utc, :processed_utc, :schema_version, :idempotency_key,
-- :payload_hash, :trace_id, :parent_span_id, :trace_sampled, and last :payload.
INSERT INTO events
  (tenant_id, source, type, stream_key, stream_seq, event_id, id_origin, timestamp_utc,
   occurred_utc, clock_skew, received_utc, processed_utc, schema_version, idempotency_key,
   payload_hash, trace_id, parent_span_id, trace_sampled, payload)
VALUES
  (:tenant_id, :source, :type, :stream_key, :stream_seq, :event_id, :id_origin, :timestamp_utc,
   :occurred_utc, :clock_skew, :received_utc, :processed_utc, :schema_version, :idempotency_key,
   :payload_hash, :trace_id, :parent_span_id, :trace_sampled, :payload)
