-- How the database serves this session. Needs SELECT on V_$SESSION.
-- Two instances at once: it only reads.
-- Parameters: none.
SELECT server, failover_type, failover_method
  FROM v$session
 WHERE sid = TO_NUMBER(SYS_CONTEXT('USERENV', 'SID'))
