-- Whether lines past retention belong to processes that are not archived: then their partitions must stay.
-- Two instances at once: it only reads.
-- Parameters: :before.
SELECT e.log_id AS id
  FROM process_logs e
 WHERE e.ingested_at < :before
   AND EXISTS (SELECT 1 FROM process_live_status l
                WHERE l.tenant_id = e.tenant_id AND l.process_id = e.process_id
                  AND l.status != 'ARCHIVED')
 FETCH FIRST 1 ROWS ONLY
