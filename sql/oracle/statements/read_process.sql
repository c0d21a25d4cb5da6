-- One process as it stands.
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :process_id.
SELECT l.process_id, l.run_id, l.run_no, l.status, l.reason, l.started_at, l.ended_at, l.current_step,
       l.progress_percent, l.last_update_at, l.last_life_at, l.deadline_at, l.correlation_id, l.row_version,
       l.metadata, l.state_digest, r.process_type, r.process_name, r.package_name, r.procedure_name, r.registered_at,
       h.median_ms
  FROM process_live_status l
  JOIN process_registry r ON r.tenant_id = l.tenant_id AND r.process_id = l.process_id
  LEFT JOIN process_history h ON h.tenant_id = l.tenant_id AND h.history_key = l.history_key
 WHERE l.tenant_id = :tenant_id AND l.process_id = :process_id
