-- Writes the median of one kind of process.
-- Two instances at once: the later one wins; the next run of that kind puts it right.
-- Parameters: :samples, :median_ms, :updated_at, :tenant_id, :history_key.
UPDATE process_history SET samples = :samples, median_ms = :median_ms, updated_at = :updated_at
 WHERE tenant_id = :tenant_id AND history_key = :history_key
