-- When the newest rows of a process came in, as far as the end of its index tells. A read only.
-- ?1 process_ref, ?2 how many rows to look at
SELECT max(ingested_us)
FROM (SELECT ingested_us FROM logs_{n} WHERE process_ref = ?1 ORDER BY logged_us DESC, log_id DESC LIMIT ?2);
