-- Moves the deadline of a process that lives. Never forward: a later one stays.
-- Two instances at once: the later deadline stays, whoever comes last.
-- Parameters: :deadline_at, :tenant_id, :process_id, :below_at (the same moment again).
UPDATE process_live_status SET deadline_at = :deadline_at
 WHERE tenant_id = :tenant_id AND process_id = :process_id AND deadline_at < :below_at
