-- Moves a stream forward to the newest event of a batch; an older batch that comes late changes nothing.
-- Two instances at once: the second waits for the first, and then its own number decides.
-- Parameters: :applied_seq, :last_seen_utc, :last_type, :tenant_id, :stream_key, :below_seq (the same number again).
UPDATE stream_state SET applied_seq = :applied_seq, last_seen_utc = :last_seen_utc, last_type = :last_type
 WHERE tenant_id = :tenant_id AND stream_key = :stream_key AND applied_seq < :below_seq
