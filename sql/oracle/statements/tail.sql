-- What became visible in all instances, of all tenants, for those who follow (a named sweep, law 7): events that were
-- applied, numbers of streams that dead letters hold, and the processes of lines that came in.
-- Two instances at once: it only reads.
-- Parameters: :applied_since, :letters_since (the same moment again), :lines_after, :lines_until, :rows_max.
SELECT 'E' AS kind, tenant_id, stream_key AS name, id, processed_utc AS at_utc
  FROM events
 WHERE processed_utc >= :applied_since
UNION ALL
SELECT 'D' AS kind, tenant_id, stream_key AS name, id, created_utc AS at_utc
  FROM dead_letter
 WHERE created_utc >= :letters_since AND stream_key IS NOT NULL
UNION ALL
SELECT 'L' AS kind, tenant_id, process_id AS name, MAX(log_id) AS id, MAX(ingested_at) AS at_utc
  FROM process_logs
 WHERE ingested_at > :lines_after AND ingested_at <= :lines_until
 GROUP BY tenant_id, process_id
 FETCH FIRST :rows_max ROWS ONLY
