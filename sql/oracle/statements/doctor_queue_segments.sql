-- How much room the queue table and its indexes take. Needs SELECT on DBA_SEGMENTS.
-- Two instances at once: it only reads.
-- Parameters: :owner, :queue_table, :dequeue_index, :time_index.
SELECT segment_name, segment_type, SUM(bytes) AS segment_bytes
  FROM dba_segments
 WHERE owner = :owner
   AND segment_name IN (:queue_table, :dequeue_index, :time_index)
 GROUP BY segment_name, segment_type
 ORDER BY segment_name
