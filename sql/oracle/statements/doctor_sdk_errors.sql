-- Errors that sentinel_pkg swallowed since :since, the newest first.
-- Two instances at once: it only reads.
-- Parameters: :since.
SELECT call_name, error_code, error_count, last_message
  FROM sdk_errors
 WHERE last_seen_at >= :since
 ORDER BY last_seen_at DESC
 FETCH FIRST 5 ROWS ONLY
