-- Drops events of all tenants past retention, a portion, and none of a process that is not archived. A named sweep (law 7).
-- Two instances at once: each deletes what it finds; a row that the other deletes is waited for and passed over.
-- Parameters: :before, :again (the same moment), :rows_max.
DELETE FROM events
 WHERE received_utc < :before
   AND id IN
       (SELECT e.id FROM events e
         WHERE e.received_utc < :again
           AND NOT EXISTS (SELECT 1 FROM process_live_status l
                    WHERE l.tenant_id = e.tenant_id AND l.process_id = e.stream_key
                      AND l.status != 'ARCHIVED')
         FETCH FIRST :rows_max ROWS ONLY)
