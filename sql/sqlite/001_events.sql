-- events.db, version 1: the projection of the log. Applied once, in one transaction, by whoever opens the store.
-- Forward only: a released migration never changes (its checksum is kept); a new one gets the next number.
-- All times are microseconds since 1970 in UTC; people read the views (views.sql).

-- Up to which place in the log everything is applied. Written in the transaction that applies it.
CREATE TABLE projection (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    position INTEGER NOT NULL
);
INSERT INTO projection (id, position) VALUES (1, 0);

-- Texts that repeat are kept once: small integers in rows and indexes halve the cost of an event.
CREATE TABLE tenant     (tenant_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE source     (source_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE event_type (type_id   INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

CREATE TABLE stream (
    stream_id     INTEGER PRIMARY KEY,
    tenant_id     INTEGER NOT NULL,
    stream_key    TEXT    NOT NULL,
    applied_seq   INTEGER NOT NULL,
    last_seen_us  INTEGER NOT NULL,
    last_type_id  INTEGER NOT NULL,
    last_position INTEGER NOT NULL,
    UNIQUE (tenant_id, stream_key)
);

-- The rolled event tables events_<n>. Number 0 holds what outlives its table: events of runs that are still open.
CREATE TABLE event_table (
    n                 INTEGER PRIMARY KEY,
    rows              INTEGER NOT NULL,
    first_position    INTEGER NOT NULL,
    last_position     INTEGER NOT NULL,
    first_received_us INTEGER NOT NULL,
    last_received_us  INTEGER NOT NULL,
    first_ordered_us  INTEGER NOT NULL,
    last_ordered_us   INTEGER NOT NULL
);

-- A process is keyed by the stream that drives it, so an event finds it without another index.
-- sweep_us is when the reaper looks at it next: never after deadline_us, but often before, so that a heartbeat
-- need not move an index entry.
CREATE TABLE process (
    stream_id        INTEGER PRIMARY KEY,
    tenant_id        INTEGER NOT NULL,
    process_id       TEXT    NOT NULL,
    status           TEXT    NOT NULL,
    reason           TEXT,
    process_type     TEXT,
    process_name     TEXT,
    package_name     TEXT,
    procedure_name   TEXT,
    correlation_id   TEXT,
    run_id           TEXT,
    run_no           INTEGER NOT NULL,
    registered_us    INTEGER NOT NULL,
    started_us       INTEGER,
    ended_us         INTEGER,
    last_update_us   INTEGER NOT NULL,
    last_life_us     INTEGER,
    deadline_us      INTEGER,
    sweep_us         INTEGER,
    current_step     TEXT,
    progress_percent REAL,
    total_executions INTEGER NOT NULL,
    successful_runs  INTEGER NOT NULL,
    failed_runs      INTEGER NOT NULL,
    avg_duration_ms  INTEGER,
    metadata         TEXT,
    history_key      TEXT    NOT NULL,
    version          INTEGER NOT NULL,
    state            BLOB    NOT NULL
);
CREATE INDEX process_status ON process (tenant_id, status);
CREATE INDEX process_sweep ON process (sweep_us) WHERE sweep_us IS NOT NULL;
-- What retention looks for: everything that is over, the longest over first.
CREATE INDEX process_over ON process (last_update_us) WHERE status IN ('COMPLETED', 'FAILED', 'EXPIRED');

CREATE TABLE process_run (
    run_no        INTEGER PRIMARY KEY,
    stream_id     INTEGER NOT NULL,
    run_id        TEXT    NOT NULL,
    tenant_id     INTEGER NOT NULL,
    history_key   TEXT    NOT NULL,
    sort_us       INTEGER NOT NULL,
    started_us    INTEGER,
    ended_us      INTEGER,
    outcome       TEXT,
    duration_ms   INTEGER,
    error_code    TEXT,
    error_message TEXT,
    UNIQUE (stream_id, run_id)
);
CREATE INDEX process_run_newest ON process_run (stream_id, sort_us);
CREATE INDEX process_run_history ON process_run (tenant_id, history_key, ended_us) WHERE outcome = 'completed';
CREATE INDEX process_run_ended ON process_run (ended_us) WHERE ended_us IS NOT NULL;

-- The median of the newest successes of one kind of process.
CREATE TABLE history (
    tenant_id   INTEGER NOT NULL,
    history_key TEXT    NOT NULL,
    samples     INTEGER NOT NULL,
    median_ms   INTEGER,
    PRIMARY KEY (tenant_id, history_key)
) WITHOUT ROWID;

-- A dead letter. Its number in the stream stays taken, so that readers can tell it from a hole.
CREATE TABLE tombstone (
    position   INTEGER PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    reason     TEXT    NOT NULL,
    detail     TEXT    NOT NULL,
    snapshot   TEXT    NOT NULL,
    event_id   TEXT,
    source     TEXT,
    stream_key TEXT,
    stream_id  INTEGER,
    stream_seq INTEGER,
    created_us INTEGER NOT NULL
);
CREATE INDEX tombstone_tenant ON tombstone (tenant);
CREATE INDEX tombstone_stream ON tombstone (stream_id, stream_seq) WHERE stream_id IS NOT NULL;
