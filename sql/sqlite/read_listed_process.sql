-- A process of a listing, by the number of its stream, where it passes the filter (?2 type, ?3 name; NULL: any).
SELECT p.state, p.status, p.deadline_us, p.version, h.median_ms, p.process_id
FROM process p
LEFT JOIN history h ON h.tenant_id = p.tenant_id AND h.history_key = p.history_key
WHERE p.stream_id = ?1 AND (?2 IS NULL OR p.process_type = ?2) AND (?3 IS NULL OR p.process_name = ?3)
