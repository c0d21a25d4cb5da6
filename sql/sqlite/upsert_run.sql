-- Writes a run as it stands. Its number of the first writing stays.
INSERT INTO process_run (
    stream_id, run_id, tenant_id, history_key, sort_us, started_us, ended_us, outcome, duration_ms, error_code,
    error_message
) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
ON CONFLICT (stream_id, run_id) DO UPDATE SET
    history_key = excluded.history_key, sort_us = excluded.sort_us, started_us = excluded.started_us,
    ended_us = excluded.ended_us, outcome = excluded.outcome, duration_ms = excluded.duration_ms,
    error_code = excluded.error_code, error_message = excluded.error_message
