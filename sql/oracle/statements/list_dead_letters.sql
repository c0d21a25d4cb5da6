-- Dead letters of a tenant, the newest first, after a place (keyset).
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, then what is wanted of :reason, :source, :from_at, :to_at, of the place :before_id; last :rows_max.
SELECT id, tenant_id, reason, detail, source, event_id, stream_key, stream_seq, created_utc, event_snapshot
  FROM dead_letter
 WHERE tenant_id = :tenant_id
   AND reason = :reason  -- when reason
   AND source = :source  -- when source
   AND created_utc >= :from_at  -- when from
   AND created_utc < :to_at  -- when to
   AND id < :before_id  -- when after
 ORDER BY id DESC
 FETCH FIRST :rows_max ROWS ONLY
