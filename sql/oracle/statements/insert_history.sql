-- Writes the median of a kind of process that was not known.
-- Two instances at once: one inserts; the other fails by the primary key and its batch is run again.
-- Parameters: :samples, :median_ms, :updated_at, :tenant_id, :history_key.
INSERT INTO process_history (samples, median_ms, updated_at, tenant_id, history_key)
VALUES (:samples, :median_ms, :updated_at, :tenant_id, :history_key)
