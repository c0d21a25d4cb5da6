-- Writes the live row of a process that was not known.
-- Two instances at once: the second waits and then fails by the primary key (ORA-00001); its batch is run again, and
-- loads what the first has written.
-- Parameters: those of update_process, with :tenant_id and :process_id first.
INSERT INTO process_live_status
  (tenant_id, process_id, run_id, run_no, status, reason, started_at, ended_at, current_step,
   progress_percent, last_update_at, estimated_completion, last_life_at, deadline_at, correlation_id, history_key,
   row_version, metadata, state_digest)
VALUES
  (:tenant_id, :process_id, :run_id, :run_no, :status, :reason, :started_at, :ended_at, :current_step,
   :progress_percent, :last_update_at, :estimated_completion, :last_life_at, :deadline_at, :correlation_id, :history_key,
   1, :metadata, :state_digest)
