-- Gives a key that is older than the window to a new request.
-- Two instances at once: the second waits for the first and then finds the row renewed: it touches nothing, and its
-- batch is run again.
-- Parameters: :payload_hash, :event_id, :stream_key, :stream_seq, :first_seen_utc, :tenant_id, :idempotency_key,
-- :before (what was first seen earlier is out of the window).
UPDATE idempotency
   SET payload_hash = :payload_hash, event_id = :event_id, stream_key = :stream_key, stream_seq = :stream_seq,
       first_seen_utc = :first_seen_utc
 WHERE tenant_id = :tenant_id AND idempotency_key = :idempotency_key AND first_seen_utc < :before
