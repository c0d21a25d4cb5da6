-- Writes a process whose status and next look of the reaper stay as they are: no index entry moves.
-- The status is bound for the sake of one list of parameters, and must be what the row holds.
UPDATE process SET
    reason = ?3, process_type = ?4, process_name = ?5, package_name = ?6, procedure_name = ?7, correlation_id = ?8,
    run_id = ?9, run_no = ?10, registered_us = ?11, started_us = ?12, ended_us = ?13, last_update_us = ?14,
    last_life_us = ?15, deadline_us = ?16, current_step = ?17, progress_percent = ?18, total_executions = ?19,
    successful_runs = ?20, failed_runs = ?21, avg_duration_ms = ?22, metadata = ?23, history_key = ?24, version = ?25,
    state = ?26
WHERE stream_id = ?1 AND status = ?2
