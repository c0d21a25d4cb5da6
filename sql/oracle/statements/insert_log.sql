-- Writes one line of a process; sent in arrays.
-- Two instances at once: nothing is shared but the identity, which the database gives.
-- Parameters: :tenant_id, :process_id, :log_level, :event_type, :component, :logged_at, :ingested_at, :event_duration_us,
-- :correlation_id, :trace_id, :span_id, :message, and last, because they are long: :details, :stack_trace.
INSERT INTO process_logs
  (tenant_id, process_id, log_level, event_type, component, logged_at, ingested_at, event_duration_us,
   correlation_id, trace_id, span_id, message, details, stack_trace)
VALUES
  (:tenant_id, :process_id, :log_level, :event_type, :component, :logged_at, :ingested_at, :event_duration_us,
   :correlation_id, :trace_id, :span_id, :message, :details, :stack_trace)
