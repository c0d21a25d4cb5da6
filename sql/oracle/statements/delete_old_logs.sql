-- Drops lines of all tenants past retention, a portion. A named sweep (law 7).
-- Two instances at once: as delete_old_events.
-- Parameters: :before, :again (the same moment), :rows_max.
DELETE FROM process_logs
 WHERE ingested_at < :before
   AND log_id IN (SELECT log_id FROM process_logs WHERE ingested_at < :again FETCH FIRST :rows_max ROWS ONLY)
