-- The highest number of a line, of whatever tenant, as far as everything before it is committed.
-- Two instances at once: it only reads.
-- Parameters: :settled_at, and what is wanted of :since_at, which keeps it to the newest partitions.
SELECT MAX(log_id) AS log_id
  FROM process_logs
 WHERE ingested_at <= :settled_at
   AND ingested_at >= :since_at  -- when since
