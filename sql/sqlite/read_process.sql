-- A process with the median of its kind, by the names that users know. One row or none.
SELECT p.state, p.status, p.deadline_us, p.version, h.median_ms, p.process_id
FROM tenant t
JOIN stream s ON s.tenant_id = t.tenant_id AND s.stream_key = ?2
JOIN process p ON p.stream_id = s.stream_id
LEFT JOIN history h ON h.tenant_id = p.tenant_id AND h.history_key = p.history_key
WHERE t.name = ?1
