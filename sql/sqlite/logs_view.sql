-- Shows all rows under the names that they have in Oracle, for people with an SQLite shell. {rows} is a UNION ALL
-- over the tables; made anew, in one transaction, whenever a table comes or goes. Nothing in the service reads it.
CREATE VIEW process_logs AS
SELECT line.log_id,
       process.process_id,
       process.tenant AS tenant_id,
       CASE line.level WHEN 0 THEN 'TRACE' WHEN 1 THEN 'DEBUG' WHEN 2 THEN 'INFO'
                       WHEN 3 THEN 'WARN' WHEN 4 THEN 'ERROR' WHEN 5 THEN 'FATAL' END AS log_level,
       json_extract(line.extra, '$.event_type') AS event_type,
       json_extract(line.extra, '$.component') AS component,
       line.message,
       json_extract(line.extra, '$.details') AS details,
       json_extract(line.extra, '$.stack_trace') AS stack_trace,
       strftime('%Y-%m-%dT%H:%M:%S', line.logged_us / 1000000, 'unixepoch')
           || printf('.%06dZ', line.logged_us % 1000000) AS logged_at,
       strftime('%Y-%m-%dT%H:%M:%S', line.ingested_us / 1000000, 'unixepoch')
           || printf('.%06dZ', line.ingested_us % 1000000) AS ingested_at,
       json_extract(line.extra, '$.duration_us') AS event_duration_us,
       json_extract(line.extra, '$.correlation_id') AS correlation_id,
       json_extract(line.extra, '$.span_id') AS span_id,
       json_extract(line.extra, '$.trace_id') AS trace_id
FROM ({rows}) AS line
JOIN log_process AS process USING (process_ref);
