-- How full the tablespaces of the owner's tables are, room that they may still take included. Needs SELECT on
-- DBA_TABLESPACE_USAGE_METRICS.
-- Two instances at once: it only reads.
-- Parameters: :owner.
SELECT m.tablespace_name AS tablespace_name, m.used_percent AS used_percent
  FROM dba_tablespace_usage_metrics m
 WHERE m.tablespace_name IN (SELECT t.tablespace_name FROM all_tables t WHERE t.owner = :owner)
 ORDER BY m.tablespace_name
