-- The highest number of a line, of whatever tenant, as far as everything before it is committed. A line has its moment
-- before its number, so one with a lower number may have a later moment: the numbers go as far as the first of those.
-- Two instances at once: it only reads.
-- Parameters: :late_after (the same as the next), :settled_at, and what is wanted of :since_at, which keeps it to the
-- newest partitions.
SELECT LEAST(MAX(log_id), NVL((SELECT MIN(late.log_id) - 1
                                 FROM process_logs late
                                WHERE late.ingested_at > :late_after), MAX(log_id))) AS log_id
  FROM process_logs
 WHERE ingested_at <= :settled_at
   AND ingested_at >= :since_at  -- when since
