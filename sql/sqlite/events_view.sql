-- The rolled tables as one; {tables} is "SELECT * FROM events_1 UNION ALL SELECT * FROM events_2 …".
CREATE VIEW events AS
SELECT e.position AS id, e.event_id, t.name AS tenant_id, c.name AS source, y.name AS type, s.stream_key, e.stream_seq,
       strftime('%Y-%m-%dT%H:%M:%S', coalesce(e.occurred_us, e.received_us) / 1000000, 'unixepoch')
           || printf('.%06dZ', coalesce(e.occurred_us, e.received_us) % 1000000) AS timestamp_utc,
       strftime('%Y-%m-%dT%H:%M:%S', e.received_us / 1000000, 'unixepoch')
           || printf('.%06dZ', e.received_us % 1000000) AS received_utc,
       strftime('%Y-%m-%dT%H:%M:%S', e.processed_us / 1000000, 'unixepoch')
           || printf('.%06dZ', e.processed_us % 1000000) AS processed_utc,
       e.schema_version, lower(hex(substr(e.trace, 1, 16))) AS trace_id, e.payload
FROM ({tables}) e
JOIN tenant t ON t.tenant_id = e.tenant_id
JOIN source c ON c.source_id = e.source_id
JOIN event_type y ON y.type_id = e.type_id
JOIN stream s ON s.stream_id = e.stream_id
