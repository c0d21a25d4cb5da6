-- Reads the last number of each stream and holds the rows, so that the next numbers are ours (law 5).
-- Two instances at once: the second waits for the first commit and reads what it left. Rows are locked in the order of
-- their keys, so that two never wait for each other (law 11).
-- Parameters: pairs of :tenant_id and :stream_key, as many as the list is made long.
SELECT tenant_id, stream_key, last_seq
  FROM stream_counter
 WHERE (tenant_id, stream_key) IN ((:tenant_id, :stream_key))
 ORDER BY tenant_id, stream_key
   FOR UPDATE
