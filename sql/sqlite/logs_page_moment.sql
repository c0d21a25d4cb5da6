-- Rows of one process in one table ({n}) that bear one time, after a log_id. A read only. A statement of its own,
-- because SQLite does not seek to a place within a moment by (logged_us, log_id) > (?, ?).
-- ?1 process_ref, ?2 the moment, ?3 the log_id after which rows begin, ?4 rows at most
SELECT log_id, logged_us, ingested_us, level, message, extra
FROM logs_{n}
WHERE process_ref = ?1 AND logged_us = ?2 AND log_id > ?3
ORDER BY log_id
LIMIT ?4;
