-- How many processes of all tenants have been past their deadline since :until. A named sweep (law 7).
-- Two instances at once: it only reads.
-- Parameters: :until.
SELECT COUNT(*) AS processes, MIN(deadline_at) AS oldest_at
  FROM process_live_status
 WHERE deadline_at <= :until
