-- Writes the registry row of a process that was not known. Its registered_at stays: listings go by it.
-- Two instances at once: as insert_process.
-- Parameters: :tenant_id, :process_id, :registered_at, those of update_registry up to :avg_duration_ms, and last :tags.
INSERT INTO process_registry
  (tenant_id, process_id, registered_at, process_type, process_name, package_name, procedure_name, status, last_heartbeat_at,
   expires_at, total_executions, successful_runs, failed_runs, avg_duration_ms, tags)
VALUES
  (:tenant_id, :process_id, :registered_at, :process_type, :process_name, :package_name, :procedure_name, :status, :last_heartbeat_at,
   :expires_at, :total_executions, :successful_runs, :failed_runs, :avg_duration_ms, :tags)
