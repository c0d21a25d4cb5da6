-- Rows of one process in one table ({n}), in the order of a page, from strictly after a moment on. A read only.
-- ?1 process_ref, ?2 the moment after which rows begin, ?3 the moment before which they end, ?4 rows at most
SELECT log_id, logged_us, ingested_us, level, message, extra
FROM logs_{n}
WHERE process_ref = ?1 AND logged_us > ?2 AND logged_us < ?3
ORDER BY logged_us, log_id
LIMIT ?4;
