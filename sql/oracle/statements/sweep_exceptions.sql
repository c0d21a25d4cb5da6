-- Takes up to :max messages off the exception queue, in this transaction.
-- Two instances at once: as dequeue_batch.
-- Parameters: :max, :cur (out, the columns of dequeue_batch).
BEGIN sentinel_svc.sweep_exceptions(:max, :cur); END;
