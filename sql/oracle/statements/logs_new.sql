-- Lines of one process in the order of their numbers, after one of them, as far as everything before them is committed.
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :process_id, :above_id, :settled_at, then what is wanted of :max_id, :from_at, :to_at and a list
-- of :log_level, and last :rows_max.
SELECT log_id, log_level, event_type, component, logged_at, ingested_at, event_duration_us, correlation_id, trace_id,
       span_id, message, details, stack_trace
  FROM process_logs
 WHERE tenant_id = :tenant_id AND process_id = :process_id AND log_id > :above_id AND ingested_at <= :settled_at
   AND log_id <= :max_id  -- when max
   AND logged_at >= :from_at  -- when from
   AND logged_at < :to_at  -- when to
   AND log_level IN ((:log_level))  -- when level
 ORDER BY log_id
 FETCH FIRST :rows_max ROWS ONLY
