-- Gives a process its number, or notes that the current table holds rows of it too. Writers take turns: each runs it
-- inside its write transaction.
-- ?1 tenant, ?2 process id, ?3 current table, ?4 now in microseconds
INSERT INTO log_process (tenant, process_id, first_table, last_table, last_ingested_us)
VALUES (?1, ?2, ?3, ?3, ?4)
ON CONFLICT (tenant, process_id)
DO UPDATE SET last_table = excluded.last_table, last_ingested_us = excluded.last_ingested_us
RETURNING process_ref;
