-- Carries the events of open runs out of table {n}, which is about to be dropped, into events_0.
-- An expired run is open: a sign of life revives it, until it is archived. Runs in the transaction that drops the table.
INSERT OR IGNORE INTO events_0
SELECT e.* FROM process p CROSS JOIN events_{n} e ON e.stream_id = p.stream_id
WHERE p.status IN ('ACTIVE', 'RUNNING', 'PAUSED', 'EXPIRED')
