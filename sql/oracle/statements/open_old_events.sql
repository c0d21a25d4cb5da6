-- Whether events past retention belong to processes that are not archived: then their partitions must stay.
-- Two instances at once: it only reads.
-- Parameters: :before.
SELECT e.id
  FROM events e
 WHERE e.received_utc < :before
   AND EXISTS (SELECT 1 FROM process_live_status l
                    WHERE l.tenant_id = e.tenant_id AND l.process_id = e.stream_key
                      AND l.status != 'ARCHIVED')
 FETCH FIRST 1 ROWS ONLY
