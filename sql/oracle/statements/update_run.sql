-- Writes a run that is in the history already.
-- Two instances at once: whoever holds the live row of its process writes its runs.
-- Parameters: :history_key, :sort_at, :started_at, :ended_at, :outcome, :duration_ms, :error_code, :error_message,
-- :tenant_id, :process_id, :run_id (one blank: the run without a name).
UPDATE process_runs
   SET history_key = :history_key, sort_at = :sort_at, started_at = :started_at, ended_at = :ended_at,
       outcome = :outcome, duration_ms = :duration_ms, error_code = :error_code, error_message = :error_message
 WHERE tenant_id = :tenant_id AND process_id = :process_id AND run_id = :run_id
