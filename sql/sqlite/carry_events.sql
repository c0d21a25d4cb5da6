-- Carries the oldest events that one stream has in table {n}, which is about to be dropped, into events_0.
-- Runs in one transaction with the removal of what it returns, so every event is in one table at any time.
-- ?1 stream, ?2 rows at most
INSERT INTO events_0
SELECT * FROM events_{n} WHERE stream_id = ?1 ORDER BY stream_seq LIMIT ?2
RETURNING position, stream_seq, received_us, ordered_us
