-- The live row that goes with insert_started_process: until the start is applied, it says that the process runs.
-- Two instances at once: as insert_started_process.
-- Parameters: :tenant_id, :process_id, :run_id, :started_at, :last_update_at.
INSERT INTO process_live_status (tenant_id, process_id, run_id, run_no, status, started_at, last_update_at)
VALUES (:tenant_id, :process_id, :run_id, 1, 'RUNNING', :started_at, :last_update_at)
