-- Drops dead letters of all tenants past retention, a portion, as long as no event of the stream before them is kept:
-- a reader must not take a missing tombstone for a hole. A named sweep (law 7).
-- Two instances at once: as delete_old_events.
-- Parameters: :before, :rows_max.
DELETE FROM dead_letter
 WHERE id IN
       (SELECT d.id FROM dead_letter d
         WHERE d.created_utc < :before
           AND NOT EXISTS (SELECT 1 FROM events e
                            WHERE e.tenant_id = d.tenant_id AND e.stream_key = d.stream_key
                              AND e.stream_seq < d.stream_seq)
         FETCH FIRST :rows_max ROWS ONLY)
