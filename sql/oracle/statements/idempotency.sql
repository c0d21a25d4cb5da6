-- Looks up requests by their keys.
-- Two instances at once: it only reads; who inserts the same key first wins (insert_idempotency).
-- Parameters: pairs of :tenant_id and :idempotency_key, as many as the list is made long.
SELECT tenant_id, idempotency_key, payload_hash, event_id, stream_key, stream_seq, first_seen_utc
  FROM idempotency
 WHERE (tenant_id, idempotency_key) IN ((:tenant_id, :idempotency_key))
