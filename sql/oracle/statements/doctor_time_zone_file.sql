-- Which time zone file the database has. Needs SELECT on V_$TIMEZONE_FILE where that is not everybody's.
-- Two instances at once: it only reads.
-- Parameters: none.
SELECT version FROM v$timezone_file
