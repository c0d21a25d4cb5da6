-- What is known of a process whose lines are kept. A read only.
-- ?1 tenant, ?2 process id
SELECT process_ref, first_table, last_table, last_ingested_us
FROM log_process
WHERE tenant = ?1 AND process_id = ?2;
