-- Makes log.db: the append-only log of accepted events, which is the queue too.
-- One instance holds the folder, so nobody else runs it at the same time; run again, it changes nothing.
-- AUTOINCREMENT keeps the highest id ever given in sqlite_sequence, so that no position repeats after a trim to
-- empty. No secondary index: an index that is not in order costs half of the ingest.
CREATE TABLE IF NOT EXISTS log (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB NOT NULL
);

-- One row that a probe rewrites, to find out whether the file takes writes.
CREATE TABLE IF NOT EXISTS probe (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    writes INTEGER NOT NULL
);
INSERT OR IGNORE INTO probe (id, writes) VALUES (1, 0);
