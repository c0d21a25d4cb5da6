-- Writes a process that is seen for the first time.
INSERT INTO process (
    stream_id, status, reason, process_type, process_name, package_name, procedure_name, correlation_id, run_id,
    run_no, registered_us, started_us, ended_us, last_update_us, last_life_us, deadline_us, current_step,
    progress_percent, total_executions, successful_runs, failed_runs, avg_duration_ms, metadata, history_key, version,
    state, sweep_us, tenant_id, process_id
) VALUES (
    ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25,
    ?26, ?27, ?28, ?29
)
