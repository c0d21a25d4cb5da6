-- Runs of a process, newest first, after a place (keyset).
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :process_id, of the place :before_at, :same_at (the same again), :before_id; last :rows_max.
SELECT run_id, sort_at, started_at, ended_at, outcome, duration_ms, error_code, error_message
  FROM process_runs
 WHERE tenant_id = :tenant_id AND process_id = :process_id
   AND (sort_at < :before_at OR (sort_at = :same_at AND run_id < :before_id))  -- when after
 ORDER BY sort_at DESC, run_id DESC
 FETCH FIRST :rows_max ROWS ONLY
