-- One dead letter.
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :id.
SELECT id, tenant_id, reason, detail, source, event_id, stream_key, stream_seq, created_utc, event_snapshot
  FROM dead_letter
 WHERE tenant_id = :tenant_id AND id = :id
