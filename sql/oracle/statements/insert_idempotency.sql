-- Remembers a request by its key, with the answer that it gets.
-- Two instances at once: the second waits for the first commit and then fails by the primary key (ORA-00001); its batch
-- is run again and finds the first answer.
-- Parameters: :tenant_id, :idempotency_key, :payload_hash (hexadecimal), :event_id, :stream_key, :stream_seq, :first_seen_utc.
INSERT INTO idempotency
  (tenant_id, idempotency_key, payload_hash, event_id, stream_key, stream_seq, first_seen_utc)
VALUES (:tenant_id, :idempotency_key, :payload_hash, :event_id, :stream_key, :stream_seq, :first_seen_utc)
