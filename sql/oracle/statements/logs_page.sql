-- Lines of one process, oldest first, after a place (keyset).
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :process_id, :from_at, :after_at, :same_at (the same again), :after_id, then what is wanted of
-- :to_at, :above_id, :max_id and a list of :log_level, and last :rows_max.
SELECT log_id, log_level, event_type, component, logged_at, ingested_at, event_duration_us, correlation_id, trace_id,
       span_id, message, details, stack_trace
  FROM process_logs
 WHERE tenant_id = :tenant_id AND process_id = :process_id AND logged_at >= :from_at
   AND (logged_at > :after_at OR (logged_at = :same_at AND log_id > :after_id))
   AND logged_at < :to_at  -- when to
   AND log_id > :above_id  -- when above
   AND log_id <= :max_id  -- when max
   AND log_level IN ((:log_level))  -- when level
 ORDER BY logged_at, log_id
 FETCH FIRST :rows_max ROWS ONLY
