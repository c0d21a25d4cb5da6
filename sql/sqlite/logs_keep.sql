-- Notes in the list of tables what was carried into logs_0. Runs in the transaction that carries it.
-- ?1 now, ?2 and ?3 bounds of the log_ids, ?4 newest receipt, ?5 and ?6 bounds of the lines' own times
INSERT INTO log_table (table_no, opened_us, first_log_id, last_log_id, last_ingested_us, logged_us_min, logged_us_max)
VALUES (0, ?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (table_no) DO UPDATE SET
    first_log_id = min(first_log_id, excluded.first_log_id),
    last_log_id = max(last_log_id, excluded.last_log_id),
    last_ingested_us = max(last_ingested_us, excluded.last_ingested_us),
    logged_us_min = min(logged_us_min, excluded.logged_us_min),
    logged_us_max = max(logged_us_max, excluded.logged_us_max);
