-- How much the owner has used of its quotas. Needs SELECT on DBA_TS_QUOTAS.
-- Two instances at once: it only reads.
-- Parameters: :owner.
SELECT tablespace_name, bytes AS used_bytes, max_bytes
  FROM dba_ts_quotas
 WHERE username = :owner
 ORDER BY tablespace_name
