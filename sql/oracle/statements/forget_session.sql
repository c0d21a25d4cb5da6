-- Forgets which session started a process, once it was found lost because of it.
-- Two instances at once: the second changes nothing more.
-- Parameters: :tenant_id, :process_id.
UPDATE process_live_status SET session_id = NULL
 WHERE tenant_id = :tenant_id AND process_id = :process_id AND session_id IS NOT NULL
