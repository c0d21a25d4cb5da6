-- Dead letters of all tenants that nobody has replayed or discarded. A named sweep (law 7).
-- Two instances at once: it only reads.
-- Parameters: none.
SELECT COUNT(*) AS letters, MAX(created_utc) AS newest_at
  FROM dead_letter
 WHERE replayed_utc IS NULL
   AND discarded_utc IS NULL
