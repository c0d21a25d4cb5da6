-- Looks up events by the ids that their callers gave them.
-- Two instances at once: it only reads; who inserts the same id first wins (insert_event_identity).
-- Parameters: triples of :tenant_id, :source and :event_id, as many as the list is made long.
SELECT tenant_id, source, event_id, payload_hash, stream_key, stream_seq, first_seen_utc
  FROM event_identity
 WHERE (tenant_id, source, event_id) IN ((:tenant_id, :source, :event_id))
