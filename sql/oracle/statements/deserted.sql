-- The states of processes that wait for a session which is gone.
-- Two instances at once: it only reads.
-- Parameters: pairs of :tenant_id and :process_id, as many as the list is made long.
SELECT tenant_id, process_id, state_digest
  FROM process_live_status
 WHERE (tenant_id, process_id) IN ((:tenant_id, :process_id)) AND session_id IS NOT NULL
