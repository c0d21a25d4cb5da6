-- Makes the database users and gives each what it needs, and nothing else. Run once as a DBA (SYS, since some of the
-- packages are its own), in the pluggable database; a second run changes nothing.
--
--   the owner     holds tables, queue and packages. Nobody logs in as it but who installs: it is made without a
--                 password, and 001 to 004 can be run by a DBA instead.
--   the service   is what Process Sentinel logs in as. It may log in; what it may do with the owner's objects is
--                 granted by 004.
--   the producer  is whose PL/SQL is watched. It is not made here. It only gets EXECUTE on sentinel_pkg, by 004.
--
-- Afterwards give the service a password or a wallet entry:  ALTER USER sentinel_svc IDENTIFIED BY ...
--
-- Synonyms let the service and the producer write the names without the owner's. They may be made before what they
-- stand for.
--
-- Substitution variables: see 001. Names are written in capitals.
DEFINE sentinel_owner = SENTINEL
DEFINE sentinel_service = SENTINEL_SVC
DEFINE sentinel_producer = CLM_APP
DEFINE sentinel_tablespace = USERS
DEFINE sentinel_context = SENTINEL_CTX

SET DEFINE ON SQLBLANKLINES ON VERIFY OFF FEEDBACK OFF SERVEROUTPUT ON
WHENEVER OSERROR EXIT FAILURE
WHENEVER SQLERROR EXIT FAILURE ROLLBACK

DECLARE
  PROCEDURE make_user(p_user IN VARCHAR2) IS
    l_there NUMBER;
  BEGIN
    SELECT COUNT(*) INTO l_there FROM dba_users WHERE username = p_user;
    IF l_there = 0 THEN
      EXECUTE IMMEDIATE 'CREATE USER ' || p_user || ' NO AUTHENTICATION DEFAULT TABLESPACE &sentinel_tablespace.';
      DBMS_OUTPUT.PUT_LINE('Made user ' || p_user || ', without a password.');
    END IF;
  END make_user;
BEGIN
  make_user('&sentinel_owner.');
  make_user('&sentinel_service.');
END;
/

-- The owner makes tables, identity columns (sequences), types and packages, and keeps data.
ALTER USER &sentinel_owner. QUOTA UNLIMITED ON &sentinel_tablespace.
/

GRANT CREATE SESSION, CREATE TABLE, CREATE SEQUENCE, CREATE TYPE, CREATE PROCEDURE TO &sentinel_owner.
/

-- Directly and not by a role, since the packages run with the owner's rights, and those know no roles.
GRANT EXECUTE ON sys.dbms_aq TO &sentinel_owner.
/

GRANT EXECUTE ON sys.dbms_aqadm TO &sentinel_owner.
/

-- Whether Partitioning is installed.
GRANT SELECT ON sys.v_$option TO &sentinel_owner.
/

-- What kind of session the service has: sentinel_svc.session_kind tells each session of itself and of no other.
GRANT SELECT ON sys.v_$session TO &sentinel_owner.
/

-- How long log rows take to be committed: sentinel_svc.open_writes tells the age of the oldest open transaction of the
-- service, on any node, and nothing else of it.
GRANT SELECT ON sys.gv_$transaction TO &sentinel_owner.
/

GRANT SELECT ON sys.gv_$session TO &sentinel_owner.
/

GRANT CREATE SESSION TO &sentinel_service.
/

-- The context that row security reads. Contexts belong to the whole database, so another installation's is not taken.
DECLARE
  l_schema VARCHAR2(128);
BEGIN
  SELECT MAX(schema) INTO l_schema FROM dba_context WHERE namespace = '&sentinel_context.';
  IF l_schema IS NOT NULL AND l_schema != '&sentinel_owner.' THEN
    RAISE_APPLICATION_ERROR(-20010, 'The context &sentinel_context. belongs to ' || l_schema
      || ': give sentinel_context another name, here and in 004, 005 and 999');
  END IF;
  EXECUTE IMMEDIATE 'CREATE OR REPLACE CONTEXT &sentinel_context. USING &sentinel_owner..sentinel_svc';
END;
/

DECLARE
  PROCEDURE make_synonym(p_user IN VARCHAR2, p_name IN VARCHAR2) IS
    e_no_such_user EXCEPTION;
    PRAGMA EXCEPTION_INIT(e_no_such_user, -1435);
  BEGIN
    IF p_user = '&sentinel_owner.' THEN
      RETURN;
    END IF;
    EXECUTE IMMEDIATE 'CREATE OR REPLACE SYNONYM ' || p_user || '.' || p_name || ' FOR &sentinel_owner..' || p_name;
  EXCEPTION
    WHEN e_no_such_user THEN
      DBMS_OUTPUT.PUT_LINE('There is no user ' || p_user || ' yet: run this script again once there is.');
  END make_synonym;
BEGIN
  make_synonym('&sentinel_producer.', 'sentinel_pkg');
  FOR owned IN (
    SELECT COLUMN_VALUE AS name FROM TABLE(SYS.ODCIVARCHAR2LIST(
      'sentinel_pkg', 'sentinel_svc', 'process_registry', 'process_live_status', 'process_runs', 'process_history',
      'process_logs', 'events', 'idempotency', 'event_identity', 'stream_counter', 'stream_state', 'dead_letter',
      'outbox', 'slo_samples', 'jobs', 'approvals', 'plugins', 'sinks', 'sdk_errors', 'sentinel_setting',
      'sentinel_schema_version'))
  ) LOOP
    make_synonym('&sentinel_service.', owned.name);
  END LOOP;
END;
/
