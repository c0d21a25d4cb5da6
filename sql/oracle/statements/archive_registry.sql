-- The registry row that goes with archive_process.
-- Two instances at once: as archive_process.
-- Parameters: :tenant_id, :process_id.
UPDATE process_registry SET status = 'ARCHIVED', expires_at = NULL WHERE tenant_id = :tenant_id AND process_id = :process_id
