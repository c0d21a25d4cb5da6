-- Processes of a tenant, the one that became known last first, after a place (keyset).
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, what is wanted of :status (a list), :process_type, :process_name, and of the place :before_at,
-- :same_at (the same again), :before_id; last :rows_max.
SELECT l.process_id, l.run_id, l.run_no, l.status, l.reason, l.started_at, l.ended_at, l.current_step,
       l.progress_percent, l.last_update_at, l.last_life_at, l.deadline_at, l.correlation_id, l.row_version,
       l.metadata, l.state_digest, r.process_type, r.process_name, r.package_name, r.procedure_name, r.registered_at,
       h.median_ms
  FROM process_live_status l
  JOIN process_registry r ON r.tenant_id = l.tenant_id AND r.process_id = l.process_id
  LEFT JOIN process_history h ON h.tenant_id = l.tenant_id AND h.history_key = l.history_key
 WHERE l.tenant_id = :tenant_id
   AND l.status IN ((:status))  -- when status
   AND r.process_type = :process_type  -- when type
   AND r.process_name = :process_name  -- when name
   AND (r.registered_at < :before_at OR (r.registered_at = :same_at AND r.process_id < :before_id))  -- when after
 ORDER BY r.registered_at DESC, r.process_id DESC
 FETCH FIRST :rows_max ROWS ONLY
