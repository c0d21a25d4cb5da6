-- Rows of one process in one table ({n}) by log_id, the order of receipt: what is new. A read only. The sign before
-- process_ref keeps SQLite from going by the index over all rows of the process ever.
-- ?1 the log_id after which rows begin, ?2 the last one looked at, ?3 process_ref, ?4 the lowest level,
-- ?5 and ?6 the moments from and before which they were logged, ?7 rows at most
SELECT log_id, logged_us, ingested_us, level, message, extra
FROM logs_{n}
WHERE log_id > ?1 AND log_id <= ?2 AND +process_ref = ?3 AND level >= ?4 AND logged_us >= ?5 AND logged_us < ?6
ORDER BY log_id
LIMIT ?7;
