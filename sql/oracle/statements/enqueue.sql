-- Puts one posted event on the queue, in this transaction; sent in arrays.
-- Two instances at once: a queue takes messages from any number of sessions.
-- Parameters: :event_id, :event_type (ENVELOPE), :process_id (the stream key, cut to 100 characters), :tenant_id,
-- :priority (smaller goes first), :payload (JSON; as CLOB beyond 32,767 bytes).
BEGIN sentinel_svc.enqueue(:event_id, :event_type, :process_id, :tenant_id, :priority, :payload); END;
