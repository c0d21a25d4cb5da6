-- Makes what logs.db needs before its first row. Two processes may run it at once: it runs in a write transaction.
--
-- log_process turns (tenant, process id) into a small number, and notes which tables hold rows of it.
-- log_table lists the tables logs_<table_no>; rows go to the newest. Its newest row is never deleted, because it
-- holds the last log_id given.
CREATE TABLE IF NOT EXISTS log_process (
    process_ref      INTEGER PRIMARY KEY,
    tenant           TEXT NOT NULL,
    process_id       TEXT NOT NULL,
    first_table      INTEGER NOT NULL,
    last_table       INTEGER NOT NULL,
    last_ingested_us INTEGER NOT NULL,
    UNIQUE (tenant, process_id)
) STRICT;
CREATE TABLE IF NOT EXISTS log_table (
    table_no         INTEGER PRIMARY KEY,
    opened_us        INTEGER NOT NULL,
    first_log_id     INTEGER NOT NULL,
    last_log_id      INTEGER NOT NULL,
    last_ingested_us INTEGER NOT NULL,
    logged_us_min    INTEGER NOT NULL,
    logged_us_max    INTEGER NOT NULL
) STRICT;
