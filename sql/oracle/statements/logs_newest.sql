-- When the newest lines of one process came in, by the end of its own time.
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :process_id, :rows_max.
SELECT ingested_at
  FROM process_logs
 WHERE tenant_id = :tenant_id AND process_id = :process_id
 ORDER BY logged_at DESC, log_id DESC
 FETCH FIRST :rows_max ROWS ONLY
