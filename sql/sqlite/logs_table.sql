-- Makes the next table of rows: {n} is its number. Runs in the transaction that lists it in log_table.
-- One index: its entries end in log_id, the rowid, so it holds the order of a page. A second one would double the
-- cost of a row.
CREATE TABLE logs_{n} (
    log_id      INTEGER PRIMARY KEY,
    process_ref INTEGER NOT NULL,
    logged_us   INTEGER NOT NULL,
    ingested_us INTEGER NOT NULL,
    level       INTEGER NOT NULL,
    message     TEXT NOT NULL,
    extra       TEXT
) STRICT;
CREATE INDEX logs_{n}_by_process ON logs_{n} (process_ref, logged_us);
