-- Notes in the list of tables what a batch has added to the newest one. Runs in the transaction that adds it.
-- ?1 table number, ?2 receipt of its first row, ?3 last log_id, ?4 receipt of its newest row, ?5 and ?6 bounds of the
-- lines' own times
UPDATE log_table
SET opened_us = ?2, last_log_id = ?3, last_ingested_us = ?4, logged_us_min = ?5, logged_us_max = ?6
WHERE table_no = ?1;
