-- Makes the queue and starts it. Run as the owner (or as a DBA) after 002; a second run changes nothing but starts a
-- queue that was stopped.
--
-- Nobody is granted anything on the queue itself: the service takes messages off it through sentinel_svc, producers
-- put them on it through sentinel_pkg, and so a producer can't take anything off.
--
-- Substitution variables: see 001. Names of the queue are written in capitals.
DEFINE sentinel_owner = SENTINEL
DEFINE sentinel_queue = SENTINEL_QUEUE
DEFINE sentinel_queue_table = SENTINEL_QUEUE_TAB

SET DEFINE ON SQLBLANKLINES ON VERIFY OFF FEEDBACK OFF SERVEROUTPUT ON
WHENEVER OSERROR EXIT FAILURE
WHENEVER SQLERROR EXIT FAILURE ROLLBACK

ALTER SESSION SET CURRENT_SCHEMA = &sentinel_owner.
/

-- The payload's column is USER_DATA. Small payloads stay in the row, which saves a read for nearly every message.
-- SecureFiles need a tablespace with automatic segment space management; where that is missing (ORA-43853), the table
-- is made with the database's own choice.
DECLARE
  PROCEDURE make_table(p_storage_clause IN VARCHAR2) IS
    e_exists EXCEPTION;
    PRAGMA EXCEPTION_INIT(e_exists, -24001);
  BEGIN
    DBMS_AQADM.CREATE_QUEUE_TABLE(
      queue_table        => '&sentinel_owner..&sentinel_queue_table.',
      queue_payload_type => '&sentinel_owner..SENTINEL_EVENT_T',
      storage_clause     => p_storage_clause,
      sort_list          => 'PRIORITY,ENQ_TIME',
      multiple_consumers => FALSE,
      comment            => 'Messages for Process Sentinel');
  EXCEPTION
    WHEN e_exists THEN
      NULL;
  END make_table;
BEGIN
  make_table('LOB(USER_DATA.PAYLOAD) STORE AS SECUREFILE (ENABLE STORAGE IN ROW CACHE)');
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE = -43853 THEN
      make_table(NULL);
    ELSE
      RAISE;
    END IF;
END;
/

-- Four deliveries at most, ten seconds apart; then a message is in the exception queue, which the service sweeps.
DECLARE
  e_exists EXCEPTION;
  PRAGMA EXCEPTION_INIT(e_exists, -24006);
BEGIN
  DBMS_AQADM.CREATE_QUEUE(
    queue_name     => '&sentinel_owner..&sentinel_queue.',
    queue_table    => '&sentinel_owner..&sentinel_queue_table.',
    max_retries    => 3,
    retry_delay    => 10,
    retention_time => 0,
    comment        => 'Events of processes, and envelopes that were posted');
EXCEPTION
  WHEN e_exists THEN
    NULL;
END;
/

BEGIN
  DBMS_AQADM.START_QUEUE(queue_name => '&sentinel_owner..&sentinel_queue.', enqueue => TRUE, dequeue => TRUE);
END;
/

-- An exception queue can't be enqueued into by anybody but the database (ORA-24017).
BEGIN
  DBMS_AQADM.START_QUEUE(
    queue_name => '&sentinel_owner..AQ$_&sentinel_queue_table._E', enqueue => FALSE, dequeue => TRUE);
END;
/

MERGE INTO sentinel_setting d
USING (
  SELECT 'queue_name' AS name, '&sentinel_owner..&sentinel_queue.' AS value FROM dual
  UNION ALL
  SELECT 'exception_queue_name' AS name, '&sentinel_owner..AQ$_&sentinel_queue_table._E' AS value FROM dual
) s ON (d.name = s.name)
WHEN MATCHED THEN UPDATE SET d.value = s.value, d.updated_at = SYS_EXTRACT_UTC(SYSTIMESTAMP)
WHEN NOT MATCHED THEN INSERT (name, value) VALUES (s.name, s.value)
/

-- What is installed. Without a checksum: that is what `sentinel migrate` adds.
MERGE INTO sentinel_schema_version d
USING (
  SELECT 3 AS version, 'sentinel_queue' AS name FROM dual
) s ON (d.version = s.version)
WHEN NOT MATCHED THEN INSERT (version, name) VALUES (s.version, s.name)
/

COMMIT
/
