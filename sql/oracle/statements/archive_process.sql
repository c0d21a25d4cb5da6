-- Marks a process archived, if it is still over and past retention.
-- Two instances at once: the second waits for the first and then touches nothing.
-- Parameters: :tenant_id, :process_id, :before.
UPDATE process_live_status SET status = 'ARCHIVED', deadline_at = NULL, row_version = row_version + 1
 WHERE tenant_id = :tenant_id AND process_id = :process_id
   AND status IN ('COMPLETED', 'FAILED', 'EXPIRED') AND last_update_at < :before
