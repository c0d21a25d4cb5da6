-- Writes the live row of a process that load_processes holds.
-- Two instances at once: the row is locked.
-- Parameters: :run_id, :run_no, :status, :reason, :started_at, :ended_at, :current_step,
-- :progress_percent, :last_update_at, :estimated_completion, :last_life_at, :deadline_at, :correlation_id, :history_key,
-- :tenant_id, :process_id, and last, because they are long: :metadata, :state_digest.
UPDATE process_live_status
   SET run_id = :run_id, run_no = :run_no, status = :status, reason = :reason,
       started_at = :started_at, ended_at = :ended_at, current_step = :current_step, progress_percent = :progress_percent,
       last_update_at = :last_update_at, estimated_completion = :estimated_completion, last_life_at = :last_life_at,
       deadline_at = :deadline_at, correlation_id = :correlation_id, history_key = :history_key,
       row_version = row_version + 1, metadata = :metadata, state_digest = :state_digest
 WHERE tenant_id = :tenant_id AND process_id = :process_id
