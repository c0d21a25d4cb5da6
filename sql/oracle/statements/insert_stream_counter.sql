-- Begins to count a stream.
-- Two instances at once: the second waits and then fails by the primary key (ORA-00001); its batch is run again.
-- Parameters: :tenant_id, :stream_key, :last_seq.
INSERT INTO stream_counter (tenant_id, stream_key, last_seq) VALUES (:tenant_id, :stream_key, :last_seq)
