-- Numbers of a stream that dead letters hold, between two numbers.
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :stream_key, :after_seq, :before_seq.
SELECT DISTINCT stream_seq
  FROM dead_letter
 WHERE tenant_id = :tenant_id AND stream_key = :stream_key AND stream_seq > :after_seq AND stream_seq < :before_seq
