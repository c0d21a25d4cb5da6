-- Writes a run that is new in the history.
-- Two instances at once: as update_run.
-- Parameters: :tenant_id, :process_id, :run_id, and those of update_run up to :error_message.
INSERT INTO process_runs (tenant_id, process_id, run_id, history_key, sort_at, started_at, ended_at, outcome, duration_ms, error_code, error_message)
VALUES (:tenant_id, :process_id, :run_id, :history_key, :sort_at, :started_at, :ended_at, :outcome, :duration_ms, :error_code, :error_message)
