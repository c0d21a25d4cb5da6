-- Forgets what is older than the window, a portion. A named sweep (law 7).
-- Two instances at once: as delete_old_events.
-- Parameters: :before, :again (the same moment), :rows_max.
DELETE FROM event_identity
 WHERE first_seen_utc < :before
   AND (tenant_id, source, event_id) IN
       (SELECT tenant_id, source, event_id FROM event_identity
         WHERE first_seen_utc < :again
         ORDER BY first_seen_utc
         FETCH FIRST :rows_max ROWS ONLY)
