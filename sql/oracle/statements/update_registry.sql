-- Writes the registry row of a process whose live row load_processes holds.
-- Two instances at once: whoever holds the live row writes this one.
-- Parameters: :process_type, :process_name, :package_name, :procedure_name, :status, :last_heartbeat_at,
-- :expires_at, :total_executions, :successful_runs, :failed_runs, :avg_duration_ms, :tenant_id, :process_id, and last :tags.
UPDATE process_registry
   SET process_type = :process_type, process_name = :process_name, package_name = :package_name, procedure_name = :procedure_name,
       status = :status, last_heartbeat_at = :last_heartbeat_at, expires_at = :expires_at,
       total_executions = :total_executions, successful_runs = :successful_runs, failed_runs = :failed_runs, avg_duration_ms = :avg_duration_ms,
       tags = :tags
 WHERE tenant_id = :tenant_id AND process_id = :process_id
