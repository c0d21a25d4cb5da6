-- Takes a run back: its start has turned up and has taken it in.
-- Two instances at once: as update_run.
-- Parameters: :tenant_id, :process_id, :run_id.
DELETE FROM process_runs WHERE tenant_id = :tenant_id AND process_id = :process_id AND run_id = :run_id
