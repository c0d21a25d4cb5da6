-- Read-only views under the names that the Oracle schema has, so that any SQLite shell answers the same questions:
--   sqlite3 -readonly events.db "SELECT process_id, status, current_step FROM process_live_status"
-- The service itself reads none of them. Times are UTC text to the microsecond. The view "events" joins the rolled
-- tables and is made anew whenever one is added or dropped.
CREATE VIEW process_registry AS
SELECT p.process_id, p.process_type, p.process_name, p.package_name, p.procedure_name, t.name AS tenant_id, p.status,
       strftime('%Y-%m-%dT%H:%M:%S', p.registered_us / 1000000, 'unixepoch')
           || printf('.%06dZ', p.registered_us % 1000000) AS registered_at,
       strftime('%Y-%m-%dT%H:%M:%S', p.last_life_us / 1000000, 'unixepoch')
           || printf('.%06dZ', p.last_life_us % 1000000) AS last_heartbeat_at,
       strftime('%Y-%m-%dT%H:%M:%S', p.deadline_us / 1000000, 'unixepoch')
           || printf('.%06dZ', p.deadline_us % 1000000) AS expires_at,
       p.metadata AS tags, p.total_executions, p.successful_runs, p.failed_runs, p.avg_duration_ms
FROM process p JOIN tenant t ON t.tenant_id = p.tenant_id;

CREATE VIEW process_live_status AS
SELECT p.process_id, t.name AS tenant_id, p.run_id, p.run_no, p.status, p.reason,
       strftime('%Y-%m-%dT%H:%M:%S', p.started_us / 1000000, 'unixepoch')
           || printf('.%06dZ', p.started_us % 1000000) AS started_at,
       p.current_step, p.progress_percent,
       strftime('%Y-%m-%dT%H:%M:%S', p.last_update_us / 1000000, 'unixepoch')
           || printf('.%06dZ', p.last_update_us % 1000000) AS last_update_at,
       CASE WHEN p.status = 'RUNNING' AND h.median_ms IS NOT NULL THEN
           strftime('%Y-%m-%dT%H:%M:%S', (p.started_us + h.median_ms * 1000) / 1000000, 'unixepoch')
               || printf('.%06dZ', (p.started_us + h.median_ms * 1000) % 1000000) END AS estimated_completion,
       strftime('%Y-%m-%dT%H:%M:%S', p.last_life_us / 1000000, 'unixepoch')
           || printf('.%06dZ', p.last_life_us % 1000000) AS last_life_at,
       strftime('%Y-%m-%dT%H:%M:%S', p.deadline_us / 1000000, 'unixepoch')
           || printf('.%06dZ', p.deadline_us % 1000000) AS deadline_at,
       p.metadata
FROM process p JOIN tenant t ON t.tenant_id = p.tenant_id
LEFT JOIN history h ON h.tenant_id = p.tenant_id AND h.history_key = p.history_key;

CREATE VIEW process_runs AS
SELECT s.stream_key AS process_id, t.name AS tenant_id, nullif(r.run_id, '') AS run_id, r.history_key,
       strftime('%Y-%m-%dT%H:%M:%S', r.started_us / 1000000, 'unixepoch')
           || printf('.%06dZ', r.started_us % 1000000) AS started_at,
       strftime('%Y-%m-%dT%H:%M:%S', r.ended_us / 1000000, 'unixepoch')
           || printf('.%06dZ', r.ended_us % 1000000) AS ended_at,
       r.outcome, r.duration_ms
FROM process_run r JOIN stream s ON s.stream_id = r.stream_id JOIN tenant t ON t.tenant_id = r.tenant_id;

CREATE VIEW stream_state AS
SELECT t.name AS tenant_id, s.stream_key, s.applied_seq,
       strftime('%Y-%m-%dT%H:%M:%S', s.last_seen_us / 1000000, 'unixepoch')
           || printf('.%06dZ', s.last_seen_us % 1000000) AS last_seen_utc,
       y.name AS last_type
FROM stream s JOIN tenant t ON t.tenant_id = s.tenant_id JOIN event_type y ON y.type_id = s.last_type_id;

CREATE VIEW dead_letter AS
SELECT d.position AS id, d.tenant AS tenant_id, d.snapshot AS event_snapshot, d.reason, d.detail, d.source,
       d.stream_key, d.stream_seq,
       strftime('%Y-%m-%dT%H:%M:%S', d.created_us / 1000000, 'unixepoch')
           || printf('.%06dZ', d.created_us % 1000000) AS created_utc
FROM tombstone d;
