-- Moves the counter of a stream that lock_stream_counters holds.
-- Two instances at once: the row is locked.
-- Parameters: :last_seq, :tenant_id, :stream_key.
UPDATE stream_counter SET last_seq = :last_seq WHERE tenant_id = :tenant_id AND stream_key = :stream_key
