-- Reads the states of processes and holds their rows, so that nobody else merges into them meanwhile.
-- Two instances at once: the second waits for the first commit and reads what it left; rows are locked in the order of
-- their keys (law 11).
-- Parameters: pairs of :tenant_id and :process_id, as many as the list is made long.
SELECT tenant_id, process_id, state_digest
  FROM process_live_status
 WHERE (tenant_id, process_id) IN ((:tenant_id, :process_id))
 ORDER BY tenant_id, process_id
   FOR UPDATE
