-- One rolled table of events; {n} is its number. Made in the transaction that writes its first row.
-- Two indexes, and a third that costs little: event_mark is (position / 16384) * 2^32 + a 32-bit hash of the event
-- id, so a batch writes into a narrow band at its end, and a look-up by event id is one probe for each 16,384 rows.
CREATE TABLE events_{n} (
    position        INTEGER PRIMARY KEY,
    tenant_id       INTEGER NOT NULL,
    source_id       INTEGER NOT NULL,
    type_id         INTEGER NOT NULL,
    stream_id       INTEGER NOT NULL,
    stream_seq      INTEGER NOT NULL,
    event_id        TEXT    NOT NULL,
    event_mark      INTEGER NOT NULL,
    flags           INTEGER NOT NULL,
    occurred_us     INTEGER,
    ordered_us      INTEGER NOT NULL,
    received_us     INTEGER NOT NULL,
    processed_us    INTEGER NOT NULL,
    schema_version  INTEGER NOT NULL,
    idempotency_key TEXT,
    hash            BLOB    NOT NULL,
    trace           BLOB    NOT NULL,
    payload         TEXT    NOT NULL
);
CREATE INDEX events_{n}_time ON events_{n} (tenant_id, ordered_us);
CREATE UNIQUE INDEX events_{n}_stream ON events_{n} (stream_id, stream_seq);
CREATE INDEX events_{n}_mark ON events_{n} (event_mark);
