-- Processes of all tenants that are over and past retention, the longest over first. A named sweep (law 7).
-- Two instances at once: it only reads; archive_process asks again.
-- Parameters: :before, :rows_max.
SELECT tenant_id, process_id
  FROM process_live_status
 WHERE CASE WHEN status IN ('COMPLETED', 'FAILED', 'EXPIRED') THEN last_update_at END < :before
 ORDER BY CASE WHEN status IN ('COMPLETED', 'FAILED', 'EXPIRED') THEN last_update_at END
 FETCH FIRST :rows_max ROWS ONLY
