-- Who this session is, where it is and how it got there.
-- Two instances at once: it only reads.
-- Parameters: none.
SELECT SYS_CONTEXT('USERENV', 'SESSION_USER') AS user_name,
       SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA') AS schema_name,
       SYS_CONTEXT('USERENV', 'SERVICE_NAME') AS service_name,
       SYS_CONTEXT('USERENV', 'INSTANCE_NAME') AS instance_name,
       SYS_CONTEXT('USERENV', 'NETWORK_PROTOCOL') AS network_protocol,
       SESSIONTIMEZONE AS session_zone,
       DBTIMEZONE AS database_zone
  FROM dual
