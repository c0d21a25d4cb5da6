-- Drops lines of all tenants past retention, a portion, and none of a process that is not archived. A named sweep (law 7).
-- Two instances at once: as delete_old_events.
-- Parameters: :before, :again (the same moment), :rows_max.
DELETE FROM process_logs
 WHERE ingested_at < :before
   AND log_id IN
       (SELECT e.log_id FROM process_logs e
         WHERE e.ingested_at < :again
           AND NOT EXISTS (SELECT 1 FROM process_live_status l
                            WHERE l.tenant_id = e.tenant_id AND l.process_id = e.process_id
                              AND l.status != 'ARCHIVED')
         FETCH FIRST :rows_max ROWS ONLY)
