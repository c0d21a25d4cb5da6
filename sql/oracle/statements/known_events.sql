-- Which events are kept already: what a session asks that lost the answer to its commit.
-- Two instances at once: it only reads.
-- Parameters: triples of :tenant_id, :stream_key and :stream_seq, as many as the list is made long.
SELECT tenant_id, stream_key, stream_seq
  FROM events
 WHERE (tenant_id, stream_key, stream_seq) IN ((:tenant_id, :stream_key, :stream_seq))
