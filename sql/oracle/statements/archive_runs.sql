-- The runs that go with archive_process.
-- Two instances at once: as archive_process.
-- Parameters: :tenant_id, :process_id.
DELETE FROM process_runs WHERE tenant_id = :tenant_id AND process_id = :process_id
