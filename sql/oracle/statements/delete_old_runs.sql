-- Drops runs of all tenants that ended before retention, a portion. A named sweep (law 7).
-- Two instances at once: each deletes what it finds; a row that the other deletes is waited for and passed over.
-- Parameters: :before, :again (the same moment), :rows_max.
DELETE FROM process_runs
 WHERE ended_at < :before
   AND (tenant_id, process_id, run_id) IN
       (SELECT tenant_id, process_id, run_id FROM process_runs
         WHERE ended_at < :again
         ORDER BY ended_at
         FETCH FIRST :rows_max ROWS ONLY)
