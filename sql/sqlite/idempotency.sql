-- Makes the catalogue of the tables idempotency_<number>, which the projection makes as positions rise.
-- Runs in events.db, which one instance holds; run again, it changes nothing.
CREATE TABLE IF NOT EXISTS idempotency_table (
    number          INTEGER PRIMARY KEY,
    newest_received INTEGER NOT NULL
);

-- The filter over a table that is full, so that a start need not read the table.
CREATE TABLE IF NOT EXISTS idempotency_filter (
    number INTEGER PRIMARY KEY,
    bits   BLOB NOT NULL
);
