-- Carries the oldest rows that one process has in table {n}, which is about to be dropped, into logs_0.
-- Runs in one transaction with the removal of what it returns, so every row is in one table at any time.
-- ?1 process_ref, ?2 rows at most
INSERT INTO logs_0
SELECT * FROM logs_{n} WHERE process_ref = ?1 ORDER BY logged_us, log_id LIMIT ?2
RETURNING log_id, logged_us, ingested_us;
