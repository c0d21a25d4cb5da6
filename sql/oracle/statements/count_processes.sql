-- How many processes are in each status, over all tenants. A named sweep (law 7).
-- Two instances at once: it only reads.
-- Parameters: none.
SELECT status, COUNT(*) AS processes FROM process_live_status GROUP BY status
