-- Remembers an event by the id that its caller gave it.
-- Two instances at once: as insert_idempotency.
-- Parameters: :tenant_id, :source, :event_id, :payload_hash (hexadecimal), :stream_key, :stream_seq, :first_seen_utc.
INSERT INTO event_identity (tenant_id, source, event_id, payload_hash, stream_key, stream_seq, first_seen_utc)
VALUES (:tenant_id, :source, :event_id, :payload_hash, :stream_key, :stream_seq, :first_seen_utc)
