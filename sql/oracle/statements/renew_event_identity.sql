-- Gives an event id that is older than the window to a new event.
-- Two instances at once: as renew_idempotency.
-- Parameters: :payload_hash, :stream_key, :stream_seq, :first_seen_utc, :tenant_id, :source, :event_id, :before.
UPDATE event_identity
   SET payload_hash = :payload_hash, stream_key = :stream_key, stream_seq = :stream_seq,
       first_seen_utc = :first_seen_utc
 WHERE tenant_id = :tenant_id AND source = :source AND event_id = :event_id AND first_seen_utc < :before
