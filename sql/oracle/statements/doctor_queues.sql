-- How often a queue of the owner delivers a message, and how long it waits between. Needs SELECT on DBA_QUEUES.
-- Two instances at once: it only reads.
-- Parameters: :owner.
SELECT name AS queue_name, queue_table, max_retries, retry_delay
  FROM dba_queues
 WHERE owner = :owner
   AND queue_type LIKE 'NORMAL%'
 ORDER BY name
