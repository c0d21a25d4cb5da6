-- How long the newest successes of one kind of process took.
-- Two instances at once: it only reads.
-- Parameters: :tenant_id, :history_key, :samples (how many).
SELECT duration_ms
  FROM process_runs
 WHERE tenant_id = :tenant_id AND history_key = :history_key
   AND CASE outcome WHEN 'completed' THEN ended_at END IS NOT NULL AND duration_ms IS NOT NULL
 ORDER BY CASE outcome WHEN 'completed' THEN ended_at END DESC
 FETCH FIRST :samples ROWS ONLY
