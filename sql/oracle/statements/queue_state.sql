-- Says whether the queue and its exception queue are open, and what waits in them.
-- Two instances at once: it only reads.
-- Parameters: :cur (out: queue_name, enqueue_enabled, dequeue_enabled, ready, waiting, expired, oldest_enq_time).
BEGIN sentinel_svc.queue_state(:cur); END;
