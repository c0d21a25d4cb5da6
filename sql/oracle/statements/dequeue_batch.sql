-- Takes up to :max messages off the queue, in this transaction; waits up to :wait_s seconds for the first.
-- Two instances at once: each gets messages that no other holds; what a lost session held comes back.
-- Parameters: :max, :wait_s (whole seconds), :cur (out: msgid, attempts, enq_time, priority, event_id, event_type,
-- process_id, tenant_id, timestamp_utc, payload).
BEGIN sentinel_svc.dequeue_batch(:max, :wait_s, :cur); END;
