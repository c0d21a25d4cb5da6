-- The clock of the database, in UTC.
-- Two instances at once: it only reads.
-- Parameters: none.
SELECT SYS_EXTRACT_UTC(SYSTIMESTAMP) AS now_utc FROM dual
