-- Makes the packages: sentinel_state (what a session remembers), sentinel_pkg (what PL/SQL code calls to be watched) and
-- sentinel_svc (what only the service calls), and grants them. Run as the owner (or as a DBA) after 003; it may be run
-- again at any time, also while sessions are using the packages.
--
-- sentinel_pkg and sentinel_svc hold nothing but constants that the compiler knows, so they have no state, and a
-- session that used the old text goes on with the new one. All state is in sentinel_state, which is replaced only
-- when its own text has changed: that alone would raise ORA-04068 in running sessions.
--
-- What sentinel_pkg promises its callers: it never commits or rolls back their work, never waits longer than a few
-- seconds for anything, and never raises: an error of its own is counted (see errors_swallowed and table sdk_errors),
-- unless sentinel_raise_errors says TRUE. A cancel (ORA-01013) belongs to the caller and passes.
--
-- Substitution variables: see 001.
--   sentinel_service          the user the service logs in as; it alone gets sentinel_svc
--   sentinel_producer         a user whose code calls sentinel_pkg; grant it to others as you like
--   sentinel_default_tenant   whose process it is when neither the caller nor the session names a tenant
--   sentinel_tenant_required  TRUE: there is no default, and such a start raises ORA-20001 instead
--   sentinel_raise_errors     TRUE: errors of the package reach its callers; for developing, not for production
--   sentinel_watch_sessions   FALSE: a process may outlive the session that started it (connection pools, job chains)
DEFINE sentinel_owner = SENTINEL
DEFINE sentinel_queue = SENTINEL_QUEUE
DEFINE sentinel_queue_table = SENTINEL_QUEUE_TAB
DEFINE sentinel_service = SENTINEL_SVC
DEFINE sentinel_producer = CLM_APP
DEFINE sentinel_context = SENTINEL_CTX
DEFINE sentinel_default_tenant = DEFAULT
DEFINE sentinel_tenant_required = FALSE
DEFINE sentinel_raise_errors = FALSE
DEFINE sentinel_watch_sessions = TRUE

SET DEFINE ON SQLBLANKLINES ON VERIFY OFF FEEDBACK OFF SERVEROUTPUT ON
WHENEVER OSERROR EXIT FAILURE
WHENEVER SQLERROR EXIT FAILURE ROLLBACK

ALTER SESSION SET CURRENT_SCHEMA = &sentinel_owner.
/

-- What a session remembers. The text is compared with the one that was executed last, which sentinel_setting keeps.
DECLARE
  l_text VARCHAR2(4000) := q'[
CREATE OR REPLACE PACKAGE sentinel_state AUTHID DEFINER ACCESSIBLE BY (PACKAGE sentinel_pkg) AS
  -- A process that this session has started or reported about.
  TYPE process_t IS RECORD (
    tenant_id      VARCHAR2(50 CHAR),
    run_id         VARCHAR2(100 CHAR),
    correlation_id VARCHAR2(100 CHAR),
    traceparent    VARCHAR2(55 CHAR),
    name           VARCHAR2(300 CHAR),
    used_no        NUMBER,
    -- The last report that was sent: when (hundredths of a second) and of which step.
    sent_cs        NUMBER,
    sent_step      VARCHAR2(200 CHAR),
    -- The newest report that came too soon after it, and waits for the next call.
    pending_type   VARCHAR2(50 CHAR),
    pending_at     TIMESTAMP(6),
    pending_data   VARCHAR2(32767),
    -- What this package wrote into V$SESSION, to be taken back; NULL where it wrote nothing.
    own_module     VARCHAR2(64),
    own_action     VARCHAR2(64),
    longop_row     BINARY_INTEGER,
    longop_slot    BINARY_INTEGER,
    percent        NUMBER
  );
  TYPE process_tab_t IS TABLE OF process_t INDEX BY VARCHAR2(400);

  TYPE log_t IS RECORD (
    tenant_id      VARCHAR2(50 CHAR),
    process_id     VARCHAR2(100 CHAR),
    log_level      VARCHAR2(5 CHAR),
    component      VARCHAR2(100 CHAR),
    logged_at      TIMESTAMP(6),
    correlation_id VARCHAR2(100 CHAR),
    trace_id       VARCHAR2(32 CHAR),
    message        VARCHAR2(4000),
    details        VARCHAR2(32767),
    stack_trace    VARCHAR2(32767)
  );
  TYPE log_tab_t IS TABLE OF log_t INDEX BY PLS_INTEGER;

  TYPE error_t IS RECORD (call_name VARCHAR2(30 CHAR), error_code NUMBER, error_count NUMBER, message VARCHAR2(1000 CHAR));
  TYPE error_tab_t IS TABLE OF error_t INDEX BY VARCHAR2(50);

  g_processes   process_tab_t;
  g_used_no     NUMBER := 0;
  g_logs        log_tab_t;
  g_logs_cs     NUMBER;
  g_logs_lost   PLS_INTEGER := 0;
  g_errors      PLS_INTEGER := 0;
  g_last_error  VARCHAR2(1000 CHAR);
  g_unsaved     error_tab_t;
  g_saved_cs    NUMBER;
END sentinel_state;]';
  l_before VARCHAR2(4000);
  l_there  NUMBER;
BEGIN
  SELECT MAX(value) INTO l_before FROM sentinel_setting WHERE name = 'sentinel_state.text';
  SELECT COUNT(*) INTO l_there FROM all_objects
   WHERE owner = SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA') AND object_name = 'SENTINEL_STATE' AND object_type = 'PACKAGE';
  IF l_there = 1 AND l_before = l_text THEN
    RETURN;
  END IF;
  EXECUTE IMMEDIATE l_text;
  MERGE INTO sentinel_setting d
  USING (SELECT 'sentinel_state.text' AS name, l_text AS value FROM dual) s ON (d.name = s.name)
  WHEN MATCHED THEN UPDATE SET d.value = s.value, d.updated_at = SYS_EXTRACT_UTC(SYSTIMESTAMP)
  WHEN NOT MATCHED THEN INSERT (name, value) VALUES (s.name, s.value);
  COMMIT;
END;
/

CREATE OR REPLACE PACKAGE sentinel_pkg AUTHID DEFINER AS
  c_event_started   CONSTANT VARCHAR2(9) := 'STARTED';
  c_event_heartbeat CONSTANT VARCHAR2(9) := 'HEARTBEAT';
  c_event_progress  CONSTANT VARCHAR2(8) := 'PROGRESS';
  c_event_completed CONSTANT VARCHAR2(9) := 'COMPLETED';
  c_event_error     CONSTANT VARCHAR2(5) := 'ERROR';
  c_event_log       CONSTANT VARCHAR2(3) := 'LOG';

  -- Opens a run of a new process and returns its id. p_metadata: a JSON object. A p_correlation_id in the form of a
  -- W3C traceparent joins the caller's trace.
  PROCEDURE start_process(
    p_package_name   IN VARCHAR2,
    p_procedure_name IN VARCHAR2,
    p_tenant_id      IN VARCHAR2 DEFAULT NULL,
    p_correlation_id IN VARCHAR2 DEFAULT NULL,
    p_metadata       IN CLOB DEFAULT NULL,
    p_process_id     OUT VARCHAR2
  );

  -- The same as a function, for PL/SQL: in a SQL statement it would run once for each row.
  FUNCTION start_proc(
    p_package_name   IN VARCHAR2,
    p_procedure_name IN VARCHAR2,
    p_tenant_id      IN VARCHAR2 DEFAULT NULL
  ) RETURN VARCHAR2;

  -- Says where the process is. At most five a second are sent (the latest one wins), but a new step always is.
  PROCEDURE update_progress(
    p_process_id   IN VARCHAR2,
    p_current_step IN VARCHAR2 DEFAULT NULL,
    p_progress_pct IN NUMBER DEFAULT NULL,
    p_metadata     IN CLOB DEFAULT NULL
  );

  PROCEDURE heartbeat(
    p_process_id     IN VARCHAR2,
    p_status_message IN VARCHAR2 DEFAULT NULL
  );

  -- p_result: JSON, or any text.
  PROCEDURE complete_process(
    p_process_id IN VARCHAR2,
    p_result     IN CLOB DEFAULT NULL
  );

  -- Survives a rollback of the caller.
  PROCEDURE fail_process(
    p_process_id    IN VARCHAR2,
    p_error_code    IN VARCHAR2 DEFAULT NULL,
    p_error_message IN VARCHAR2 DEFAULT NULL,
    p_stack_trace   IN CLOB DEFAULT NULL
  );

  -- The same in one line, for WHEN OTHERS: it finds code, message and stack itself.
  PROCEDURE fail_current(p_process_id IN VARCHAR2);

  -- Lines of the process's log. They are gathered and written together: see flush_logs.
  PROCEDURE log_debug(p_process_id IN VARCHAR2, p_message IN VARCHAR2, p_details IN CLOB DEFAULT NULL);
  PROCEDURE log_info(p_process_id IN VARCHAR2, p_message IN VARCHAR2, p_details IN CLOB DEFAULT NULL);
  PROCEDURE log_warn(p_process_id IN VARCHAR2, p_message IN VARCHAR2, p_details IN CLOB DEFAULT NULL);
  PROCEDURE log_error(
    p_process_id  IN VARCHAR2,
    p_message     IN VARCHAR2,
    p_details     IN CLOB DEFAULT NULL,
    p_stack_trace IN CLOB DEFAULT NULL
  );

  -- Writes what log_* has gathered in this session. Happens by itself after an error line, at the end of a process,
  -- and when enough lines or seconds have gathered. p_process_id is for the reader; the whole buffer goes.
  PROCEDURE flush_logs(p_process_id IN VARCHAR2 DEFAULT NULL);

  -- Sends any event. p_payload: what the event says, a JSON object as POST /internal/* takes it.
  PROCEDURE notify_sentinel(
    p_event_type IN VARCHAR2,
    p_process_id IN VARCHAR2,
    p_tenant_id  IN VARCHAR2 DEFAULT NULL,
    p_payload    IN CLOB DEFAULT NULL
  );

  -- How many errors this session swallowed, and the last one.
  FUNCTION errors_swallowed RETURN PLS_INTEGER;
  FUNCTION last_error RETURN VARCHAR2;
END sentinel_pkg;
/

-- What only the service calls. Nothing here commits, except where it says so.
CREATE OR REPLACE PACKAGE sentinel_svc AUTHID DEFINER AS
  -- Takes up to p_max messages off the queue, in the caller's transaction; waits up to p_wait_s seconds for the first.
  -- Columns of p_cur: msgid (32 hexadecimal digits), attempts, enq_time (UTC), priority, event_id, event_type,
  -- process_id, tenant_id, timestamp_utc, payload. No row: nothing came.
  PROCEDURE dequeue_batch(p_max IN PLS_INTEGER, p_wait_s IN PLS_INTEGER, p_cur OUT SYS_REFCURSOR);

  -- Puts one message on the queue, in the caller's transaction. A payload of up to 32,767 bytes may be bound as
  -- VARCHAR2 or LONG and the call sent in arrays; a longer one has to be bound as CLOB. p_process_id is what people
  -- see in the queue, cut to 100 characters: the stream's key is in the payload.
  PROCEDURE enqueue(
    p_event_id   IN VARCHAR2,
    p_event_type IN VARCHAR2,
    p_process_id IN VARCHAR2,
    p_tenant_id  IN VARCHAR2,
    p_priority   IN PLS_INTEGER,
    p_payload    IN CLOB
  );

  -- Takes up to p_max messages off the exception queue, in the caller's transaction. Columns as dequeue_batch.
  PROCEDURE sweep_exceptions(p_max IN PLS_INTEGER, p_cur OUT SYS_REFCURSOR);

  -- Says for whom this session works from now on: the context that row security reads, and the client identifier.
  -- NULL: for nobody.
  PROCEDURE set_tenant(p_tenant_id IN VARCHAR2);

  -- One row for each of the two queues. Columns: queue_name, enqueue_enabled and dequeue_enabled (YES or NO), ready,
  -- waiting, expired, oldest_enq_time (UTC, of the ready ones). It counts the messages: not for every request.
  PROCEDURE queue_state(p_cur OUT SYS_REFCURSOR);

  -- Processes that are waited for and whose session is gone. Columns: tenant_id, process_id.
  PROCEDURE dead_sessions(p_max IN PLS_INTEGER, p_cur OUT SYS_REFCURSOR);

  -- Drops the partitions of EVENTS or PROCESS_LOGS that hold nothing newer than p_before. DDL: it commits.
  PROCEDURE drop_partitions(p_table_name IN VARCHAR2, p_before IN TIMESTAMP, p_dropped OUT PLS_INTEGER);
END sentinel_svc;
/
