-- The first that is applied of a stream.
-- Two instances at once: one inserts; the other fails by the primary key and updates after it.
-- Parameters: :applied_seq, :last_seen_utc, :last_type, :tenant_id, :stream_key.
INSERT INTO stream_state (applied_seq, last_seen_utc, last_type, tenant_id, stream_key)
VALUES (:applied_seq, :last_seen_utc, :last_type, :tenant_id, :stream_key)
