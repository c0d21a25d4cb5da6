-- Takes everything away that 001 to 005 made, with all data. Run as the owner (or as a DBA); run again, it changes
-- nothing. It refuses unless sentinel_uninstall is YES. The users, their synonyms and the context are a DBA's to drop:
--   DROP USER sentinel CASCADE, DROP USER sentinel_svc CASCADE, DROP CONTEXT sentinel_ctx
--
-- Substitution variables: see 001.
DEFINE sentinel_owner = SENTINEL
DEFINE sentinel_queue = SENTINEL_QUEUE
DEFINE sentinel_queue_table = SENTINEL_QUEUE_TAB
DEFINE sentinel_uninstall = NO

SET DEFINE ON SQLBLANKLINES ON VERIFY OFF FEEDBACK OFF SERVEROUTPUT ON
WHENEVER OSERROR EXIT FAILURE
WHENEVER SQLERROR EXIT FAILURE ROLLBACK

ALTER SESSION SET CURRENT_SCHEMA = &sentinel_owner.
/

BEGIN
  IF '&sentinel_uninstall.' != 'YES' THEN
    RAISE_APPLICATION_ERROR(-20011,
      'This drops all data of Process Sentinel in &sentinel_owner.: write DEFINE sentinel_uninstall = YES to mean it');
  END IF;
END;
/

-- The queue first: its table depends on the types. What is missing is gone already: -24010 (no such queue), -24002
-- (no such queue table).
BEGIN
  DBMS_AQADM.STOP_QUEUE(queue_name => '&sentinel_owner..&sentinel_queue.', wait => FALSE);
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE NOT IN (-24010, -24002) THEN RAISE; END IF;
END;
/

BEGIN
  DBMS_AQADM.DROP_QUEUE(queue_name => '&sentinel_owner..&sentinel_queue.');
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE NOT IN (-24010, -24002) THEN RAISE; END IF;
END;
/

BEGIN
  DBMS_AQADM.DROP_QUEUE_TABLE(queue_table => '&sentinel_owner..&sentinel_queue_table.', force => TRUE);
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE NOT IN (-24010, -24002) THEN RAISE; END IF;
END;
/

-- -942: no such table; -4043: no such package, function or type.
DECLARE
  PROCEDURE drop_object(p_text IN VARCHAR2) IS
  BEGIN
    EXECUTE IMMEDIATE 'DROP ' || p_text;
  EXCEPTION
    WHEN OTHERS THEN
      IF SQLCODE NOT IN (-942, -4043) THEN RAISE; END IF;
  END drop_object;
BEGIN
  drop_object('PACKAGE sentinel_svc');
  drop_object('PACKAGE sentinel_pkg');
  drop_object('PACKAGE sentinel_state');
  FOR owned IN (
    SELECT COLUMN_VALUE AS name FROM TABLE(SYS.ODCIVARCHAR2LIST(
      'process_registry', 'process_live_status', 'process_runs', 'process_history', 'process_logs', 'events',
      'idempotency', 'event_identity', 'stream_counter', 'stream_state', 'dead_letter', 'outbox', 'slo_samples',
      'jobs', 'approvals', 'plugins', 'sinks', 'sdk_errors', 'sentinel_setting', 'sentinel_schema_version'))
  ) LOOP
    drop_object('TABLE ' || owned.name || ' CASCADE CONSTRAINTS PURGE');
  END LOOP;
  -- After the tables: their policies, if there are any, name it.
  drop_object('FUNCTION sentinel_tenant_predicate');
  drop_object('TYPE sentinel_msg_tab_t FORCE');
  drop_object('TYPE sentinel_msg_t FORCE');
  drop_object('TYPE sentinel_event_tab_t FORCE');
  drop_object('TYPE sentinel_event_t FORCE');
  drop_object('TYPE sentinel_process_tab_t FORCE');
  drop_object('TYPE sentinel_process_t FORCE');
END;
/
