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
CREATE OR REPLACE PACKAGE sentinel_state AUTHID DEFINER AS
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

  -- Sends any event. p_payload: what the event says, a JSON object as the HTTP reports take it.
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

  -- What the calling session is. One row, columns: server (DEDICATED, SHARED, POOLED, and so on) and failover_type (NONE,
  -- SESSION, SELECT, TRANSACTION, AUTO). Without the owner's right on V_$SESSION it raises ORA-00942.
  PROCEDURE session_kind(p_cur OUT SYS_REFCURSOR);

  -- For how long the oldest open transaction of those sessions of the service lasts that write log rows: a follower is
  -- shown nothing that came in after it began. One row, column: age_s, in whole seconds, 0 where none is open. Without
  -- the owner's right on GV_$TRANSACTION and GV_$SESSION it raises ORA-00942.
  PROCEDURE open_writes(p_cur OUT SYS_REFCURSOR);

  -- Drops the partitions of EVENTS or PROCESS_LOGS that hold nothing newer than p_before. DDL: it commits.
  PROCEDURE drop_partitions(p_table_name IN VARCHAR2, p_before IN TIMESTAMP, p_dropped OUT PLS_INTEGER);
END sentinel_svc;
/

CREATE OR REPLACE PACKAGE BODY sentinel_pkg AS
  -- Literals only, here and below: a constant that the compiler knows is no state.
  c_queue              CONSTANT VARCHAR2(261) := '&sentinel_owner..&sentinel_queue.';
  c_default_tenant     CONSTANT VARCHAR2(50) := '&sentinel_default_tenant.';
  c_tenant_required    CONSTANT BOOLEAN := &sentinel_tenant_required.;
  c_raise_errors       CONSTANT BOOLEAN := &sentinel_raise_errors.;
  c_watch_sessions     CONSTANT BOOLEAN := &sentinel_watch_sessions.;

  -- Five reports a second: the shortest time between two of one process, in hundredths of a second.
  c_report_gap_cs      CONSTANT PLS_INTEGER := 20;
  -- Log lines that are gathered before they are written, how long the first of them waits for the next call, and how
  -- many are kept while writing fails.
  c_log_batch          CONSTANT PLS_INTEGER := 50;
  c_log_wait_cs        CONSTANT PLS_INTEGER := 200;
  c_logs_max           CONSTANT PLS_INTEGER := 500;
  -- Processes that a session remembers. One that is forgotten is looked up again.
  c_processes_max      CONSTANT PLS_INTEGER := 200;
  -- Kinds of errors that are counted between two writes to sdk_errors, and the time between them.
  c_error_kinds_max    CONSTANT PLS_INTEGER := 100;
  c_errors_wait_cs     CONSTANT PLS_INTEGER := 6000;

  -- What the service takes: an event with more than that would be set aside as a dead letter.
  c_metadata_bytes_max CONSTANT PLS_INTEGER := 16384;
  c_step_chars_max     CONSTANT PLS_INTEGER := 200;
  c_code_chars_max     CONSTANT PLS_INTEGER := 100;
  c_name_chars_max     CONSTANT PLS_INTEGER := 128;
  c_id_chars_max       CONSTANT PLS_INTEGER := 100;
  c_message_bytes_max  CONSTANT PLS_INTEGER := 4000;
  -- JSON of a caller that is longer is left out, with a note in its place.
  c_json_chars_max     CONSTANT PLS_INTEGER := 262144;
  -- Text of a caller that is longer is cut: at four bytes a character this fits a VARCHAR2.
  c_text_chars_max     CONSTANT PLS_INTEGER := 8000;

  c_tenant_chars_max   CONSTANT PLS_INTEGER := 50;
  c_tenant_letters     CONSTANT VARCHAR2(70) := 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-';

  TYPE tenant_tab_t IS TABLE OF VARCHAR2(50 CHAR);
  TYPE clob_tab_t IS TABLE OF CLOB INDEX BY PLS_INTEGER;

  -- Time.

  FUNCTION utc_now RETURN TIMESTAMP IS
  BEGIN
    RETURN SYS_EXTRACT_UTC(SYSTIMESTAMP);
  END utc_now;

  -- RFC 3339, whatever calendar the session counts by.
  FUNCTION rfc3339(p_at IN TIMESTAMP) RETURN VARCHAR2 IS
  BEGIN
    RETURN TO_CHAR(p_at, 'YYYY-MM-DD"T"HH24:MI:SS.FF6"Z"', 'NLS_CALENDAR=GREGORIAN');
  END rfc3339;

  -- GET_TIME turns over into negative numbers, so a clock that went back has passed as well.
  FUNCTION has_passed(p_since_cs IN NUMBER, p_wait_cs IN NUMBER) RETURN BOOLEAN IS
    l_now_cs NUMBER;
  BEGIN
    l_now_cs := DBMS_UTILITY.GET_TIME;
    RETURN p_since_cs IS NULL OR l_now_cs < p_since_cs OR l_now_cs - p_since_cs >= p_wait_cs;
  END has_passed;

  -- Errors of this package.

  -- Never waits for another session: what can't be added now is added later.
  PROCEDURE save_errors IS
    PRAGMA AUTONOMOUS_TRANSACTION;
    l_key   VARCHAR2(50);
    l_error sentinel_state.error_t;
    l_count NUMBER;
  BEGIN
    l_key := sentinel_state.g_unsaved.FIRST;
    WHILE l_key IS NOT NULL LOOP
      l_error := sentinel_state.g_unsaved(l_key);
      BEGIN
        SELECT error_count INTO l_count FROM sdk_errors
         WHERE call_name = l_error.call_name AND error_code = l_error.error_code
           FOR UPDATE NOWAIT;
        UPDATE sdk_errors
           SET error_count = l_count + l_error.error_count,
               last_seen_at = SYS_EXTRACT_UTC(SYSTIMESTAMP),
               last_message = l_error.message
         WHERE call_name = l_error.call_name AND error_code = l_error.error_code;
      EXCEPTION
        WHEN NO_DATA_FOUND THEN
          INSERT INTO sdk_errors (call_name, error_code, error_count, last_message)
          VALUES (l_error.call_name, l_error.error_code, l_error.error_count, l_error.message);
      END;
      l_key := sentinel_state.g_unsaved.NEXT(l_key);
    END LOOP;
    COMMIT WRITE BATCH NOWAIT;
    sentinel_state.g_unsaved.DELETE;
  EXCEPTION
    WHEN OTHERS THEN
      ROLLBACK;
      RAISE;
  END save_errors;

  PROCEDURE note_error(p_call_name IN VARCHAR2, p_code IN NUMBER, p_message IN VARCHAR2) IS
    l_key   VARCHAR2(50);
    l_error sentinel_state.error_t;
  BEGIN
    sentinel_state.g_errors := sentinel_state.g_errors + 1;
    sentinel_state.g_last_error := SUBSTR(p_call_name || ': ' || p_message, 1, 1000);
    l_key := p_call_name || ' ' || TO_CHAR(p_code);
    IF sentinel_state.g_unsaved.EXISTS(l_key) THEN
      l_error := sentinel_state.g_unsaved(l_key);
    ELSIF sentinel_state.g_unsaved.COUNT >= c_error_kinds_max THEN
      RETURN;
    ELSE
      l_error.call_name := p_call_name;
      l_error.error_code := p_code;
      l_error.error_count := 0;
    END IF;
    l_error.error_count := l_error.error_count + 1;
    l_error.message := SUBSTR(p_message, 1, 1000);
    sentinel_state.g_unsaved(l_key) := l_error;
    IF has_passed(sentinel_state.g_saved_cs, c_errors_wait_cs) THEN
      sentinel_state.g_saved_cs := DBMS_UTILITY.GET_TIME;
      save_errors;
    END IF;
  EXCEPTION
    -- The count of the session stands; there is nobody left to tell.
    WHEN OTHERS THEN
      NULL;
  END note_error;

  -- What reaches the caller all the same: its own cancel, and what the constants ask for.
  FUNCTION must_pass(p_code IN NUMBER) RETURN BOOLEAN IS
  BEGIN
    RETURN c_raise_errors OR p_code = -1013 OR (c_tenant_required AND p_code = -20001);
  END must_pass;

  -- Text and JSON.

  FUNCTION new_id RETURN VARCHAR2 IS
    l_hex VARCHAR2(32);
  BEGIN
    l_hex := LOWER(RAWTOHEX(SYS_GUID()));
    RETURN SUBSTR(l_hex, 1, 8) || '-' || SUBSTR(l_hex, 9, 4) || '-' || SUBSTR(l_hex, 13, 4) || '-'
        || SUBSTR(l_hex, 17, 4) || '-' || SUBSTR(l_hex, 21, 12);
  END new_id;

  -- No event may hold U+0000.
  FUNCTION text_of(p_text IN VARCHAR2, p_chars_max IN PLS_INTEGER) RETURN VARCHAR2 IS
  BEGIN
    RETURN SUBSTR(REPLACE(p_text, CHR(0)), 1, p_chars_max);
  END text_of;

  -- A name holds no control characters at all.
  FUNCTION name_of(p_text IN VARCHAR2, p_chars_max IN PLS_INTEGER) RETURN VARCHAR2 IS
  BEGIN
    RETURN SUBSTR(REGEXP_REPLACE(p_text, '[[:cntrl:]]', ' '), 1, p_chars_max);
  END name_of;

  FUNCTION text_of_clob(p_text IN CLOB) RETURN VARCHAR2 IS
  BEGIN
    RETURN text_of(DBMS_LOB.SUBSTR(p_text, c_text_chars_max, 1), c_text_chars_max);
  END text_of_clob;

  -- Cut to what a column of 4000 characters holds in bytes, at a character.
  FUNCTION message_of(p_text IN VARCHAR2) RETURN VARCHAR2 IS
    l_text VARCHAR2(32767);
  BEGIN
    l_text := REPLACE(p_text, CHR(0));
    IF l_text IS NULL THEN
      RETURN '(no message)';
    ELSIF LENGTHB(l_text) <= c_message_bytes_max THEN
      RETURN l_text;
    END IF;
    l_text := SUBSTR(l_text, 1, c_message_bytes_max - 3);
    WHILE LENGTHB(l_text) > c_message_bytes_max - 3 LOOP
      l_text := SUBSTR(l_text, 1, LENGTH(l_text) - CEIL((LENGTHB(l_text) - c_message_bytes_max + 3) / 4));
    END LOOP;
    RETURN l_text || '...';
  END message_of;

  -- Any JSON text as an element; what is no JSON, or too much of it, as an object that says so.
  FUNCTION element_of(p_json IN CLOB) RETURN JSON_ELEMENT_T IS
    l_note JSON_OBJECT_T;
  BEGIN
    IF DBMS_LOB.GETLENGTH(p_json) > c_json_chars_max THEN
      l_note := JSON_OBJECT_T();
      l_note.put('left_out', 'longer than ' || c_json_chars_max || ' characters');
      RETURN l_note;
    END IF;
    RETURN JSON_ELEMENT_T.parse(p_json);
  EXCEPTION
    WHEN OTHERS THEN
      IF SQLCODE = -1013 THEN RAISE; END IF;
      l_note := JSON_OBJECT_T();
      l_note.put('text', text_of_clob(p_json));
      RETURN l_note;
  END element_of;

  -- The same, and always an object.
  FUNCTION object_of(p_json IN CLOB) RETURN JSON_OBJECT_T IS
    l_element JSON_ELEMENT_T;
    l_object  JSON_OBJECT_T;
  BEGIN
    IF p_json IS NULL OR DBMS_LOB.GETLENGTH(p_json) = 0 THEN
      RETURN JSON_OBJECT_T();
    END IF;
    l_element := element_of(p_json);
    IF l_element.is_object THEN
      RETURN TREAT(l_element AS JSON_OBJECT_T);
    END IF;
    l_object := JSON_OBJECT_T();
    l_object.put('value', l_element);
    RETURN l_object;
  END object_of;

  -- Puts nothing where there is no text: an absent member and an empty one say the same.
  PROCEDURE put_text(p_object IN OUT NOCOPY JSON_OBJECT_T, p_name IN VARCHAR2, p_text IN VARCHAR2) IS
  BEGIN
    IF p_text IS NOT NULL THEN
      p_object.put(p_name, p_text);
    END IF;
  END put_text;

  PROCEDURE put_metadata(p_object IN OUT NOCOPY JSON_OBJECT_T, p_metadata IN CLOB) IS
    l_metadata JSON_OBJECT_T;
  BEGIN
    IF p_metadata IS NULL OR DBMS_LOB.GETLENGTH(p_metadata) = 0 THEN
      RETURN;
    END IF;
    l_metadata := object_of(p_metadata);
    IF DBMS_LOB.GETLENGTH(l_metadata.to_clob()) * 4 > c_metadata_bytes_max
       AND LENGTHB(l_metadata.to_string()) > c_metadata_bytes_max
    THEN
      l_metadata := JSON_OBJECT_T();
      l_metadata.put('left_out', 'metadata of more than ' || c_metadata_bytes_max || ' bytes');
    END IF;
    p_object.put('metadata', l_metadata);
  EXCEPTION
    -- to_string holds no more than 32,767 bytes.
    WHEN OTHERS THEN
      IF SQLCODE = -1013 THEN RAISE; END IF;
      l_metadata := JSON_OBJECT_T();
      l_metadata.put('left_out', 'metadata of more than ' || c_metadata_bytes_max || ' bytes');
      p_object.put('metadata', l_metadata);
  END put_metadata;

  -- What a report says on top of an older one that was not sent: member by member the newer, metadata too.
  FUNCTION merged(p_older IN VARCHAR2, p_newer IN JSON_OBJECT_T) RETURN JSON_OBJECT_T IS
    l_merged         JSON_OBJECT_T;
    l_names          JSON_KEY_LIST;
    l_metadata       JSON_OBJECT_T;
    l_newer_metadata JSON_OBJECT_T;
    l_metadata_names JSON_KEY_LIST;
  BEGIN
    l_merged := JSON_OBJECT_T.parse(p_older);
    l_metadata := l_merged.get_object('metadata');
    l_names := p_newer.get_keys;
    IF l_names IS NULL THEN
      RETURN l_merged;
    END IF;
    FOR i IN 1 .. l_names.COUNT LOOP
      l_merged.put(l_names(i), p_newer.get(l_names(i)));
    END LOOP;
    l_newer_metadata := p_newer.get_object('metadata');
    IF l_metadata IS NOT NULL AND l_newer_metadata IS NOT NULL THEN
      l_metadata_names := l_newer_metadata.get_keys;
      IF l_metadata_names IS NOT NULL THEN
        FOR i IN 1 .. l_metadata_names.COUNT LOOP
          l_metadata.put(l_metadata_names(i), l_newer_metadata.get(l_metadata_names(i)));
        END LOOP;
      END IF;
      l_merged.put('metadata', l_metadata);
    END IF;
    RETURN l_merged;
  END merged;

  -- Who it is.

  -- The id if it can name a tenant, else NULL.
  FUNCTION tenant_named(p_tenant_id IN VARCHAR2) RETURN VARCHAR2 IS
  BEGIN
    IF LENGTH(p_tenant_id) <= c_tenant_chars_max AND TRANSLATE(p_tenant_id, '#' || c_tenant_letters, '#') IS NULL THEN
      RETURN p_tenant_id;
    END IF;
    RETURN NULL;
  END tenant_named;

  FUNCTION tenant_given(p_tenant_id IN VARCHAR2) RETURN VARCHAR2 IS
    l_tenant_id VARCHAR2(50 CHAR);
  BEGIN
    l_tenant_id := tenant_named(p_tenant_id);
    IF p_tenant_id IS NOT NULL AND l_tenant_id IS NULL THEN
      RAISE_APPLICATION_ERROR(-20007, 'p_tenant_id is not 1 to 50 letters, digits, dots, dashes and underscores');
    END IF;
    RETURN NVL(l_tenant_id, tenant_named(SYS_CONTEXT('USERENV', 'CLIENT_IDENTIFIER')));
  END tenant_given;

  FUNCTION tenant_of_start(p_tenant_id IN VARCHAR2) RETURN VARCHAR2 IS
    l_tenant_id VARCHAR2(50 CHAR);
  BEGIN
    l_tenant_id := tenant_given(p_tenant_id);
    IF l_tenant_id IS NULL AND c_tenant_required THEN
      RAISE_APPLICATION_ERROR(-20001, 'name a tenant in p_tenant_id or by DBMS_SESSION.SET_IDENTIFIER');
    END IF;
    RETURN NVL(l_tenant_id, c_default_tenant);
  END tenant_of_start;

  FUNCTION tenant_of_process(p_process_id IN VARCHAR2, p_tenant_id IN VARCHAR2) RETURN VARCHAR2 IS
    l_tenant_id VARCHAR2(50 CHAR);
    l_tenants   tenant_tab_t;
  BEGIN
    l_tenant_id := tenant_given(p_tenant_id);
    IF l_tenant_id IS NOT NULL THEN
      RETURN l_tenant_id;
    END IF;
    SELECT tenant_id BULK COLLECT INTO l_tenants FROM process_registry
     WHERE process_id = p_process_id AND ROWNUM <= 2;
    IF l_tenants.COUNT != 1 THEN
      RAISE_APPLICATION_ERROR(-20006, 'no tenant given, and ' ||
        CASE l_tenants.COUNT WHEN 0 THEN 'no process has' ELSE 'processes of several tenants have' END || ' this id');
    END IF;
    RETURN l_tenants(1);
  END tenant_of_process;

  -- What a session remembers.

  PROCEDURE remember(p_process_id IN VARCHAR2, p_process IN sentinel_state.process_t) IS
    l_id     VARCHAR2(400);
    l_oldest VARCHAR2(400);
  BEGIN
    IF NOT sentinel_state.g_processes.EXISTS(p_process_id)
       AND sentinel_state.g_processes.COUNT >= c_processes_max
    THEN
      l_id := sentinel_state.g_processes.FIRST;
      l_oldest := l_id;
      WHILE l_id IS NOT NULL LOOP
        IF sentinel_state.g_processes(l_id).used_no < sentinel_state.g_processes(l_oldest).used_no THEN
          l_oldest := l_id;
        END IF;
        l_id := sentinel_state.g_processes.NEXT(l_id);
      END LOOP;
      sentinel_state.g_processes.DELETE(l_oldest);
    END IF;
    sentinel_state.g_used_no := sentinel_state.g_used_no + 1;
    sentinel_state.g_processes(p_process_id) := p_process;
    sentinel_state.g_processes(p_process_id).used_no := sentinel_state.g_used_no;
  END remember;

  FUNCTION recall(p_process_id IN VARCHAR2, p_tenant_id IN VARCHAR2) RETURN sentinel_state.process_t IS
    l_process sentinel_state.process_t;
  BEGIN
    IF p_process_id IS NULL OR LENGTH(p_process_id) > c_id_chars_max THEN
      RAISE_APPLICATION_ERROR(-20005, 'p_process_id is empty or longer than ' || c_id_chars_max || ' characters');
    END IF;
    IF sentinel_state.g_processes.EXISTS(p_process_id) THEN
      l_process := sentinel_state.g_processes(p_process_id);
      IF p_tenant_id IS NULL OR p_tenant_id = l_process.tenant_id THEN
        RETURN l_process;
      END IF;
      l_process := NULL;
    END IF;
    l_process.tenant_id := tenant_of_process(p_process_id, p_tenant_id);
    RETURN l_process;
  END recall;

  -- What V$SESSION and V$SESSION_LONGOPS show.

  PROCEDURE show_start(
    p_process        IN OUT NOCOPY sentinel_state.process_t,
    p_package_name   IN VARCHAR2,
    p_procedure_name IN VARCHAR2
  ) IS
    l_module VARCHAR2(64);
    l_action VARCHAR2(64);
  BEGIN
    DBMS_APPLICATION_INFO.READ_MODULE(l_module, l_action);
    IF l_module IS NULL AND p_package_name IS NOT NULL THEN
      p_process.own_module := SUBSTRB(p_package_name, 1, 48);
      DBMS_APPLICATION_INFO.SET_MODULE(p_process.own_module, l_action);
    END IF;
    IF l_action IS NULL AND p_procedure_name IS NOT NULL THEN
      p_process.own_action := SUBSTRB(p_procedure_name, 1, 32);
      DBMS_APPLICATION_INFO.SET_ACTION(p_process.own_action);
    END IF;
  END show_start;

  PROCEDURE show_progress(
    p_process IN OUT NOCOPY sentinel_state.process_t,
    p_step    IN VARCHAR2,
    p_percent IN NUMBER
  ) IS
    l_module VARCHAR2(64);
    l_action VARCHAR2(64);
  BEGIN
    IF p_step IS NOT NULL AND p_process.own_action IS NOT NULL THEN
      DBMS_APPLICATION_INFO.READ_MODULE(l_module, l_action);
      IF l_action = p_process.own_action THEN
        p_process.own_action := SUBSTRB(p_step, 1, 32);
        DBMS_APPLICATION_INFO.SET_ACTION(p_process.own_action);
      END IF;
    END IF;
    IF p_percent IS NOT NULL AND p_process.name IS NOT NULL THEN
      p_process.percent := p_percent;
      p_process.longop_row := NVL(p_process.longop_row, DBMS_APPLICATION_INFO.SET_SESSION_LONGOPS_NOHINT);
      DBMS_APPLICATION_INFO.SET_SESSION_LONGOPS(
        rindex => p_process.longop_row, slno => p_process.longop_slot,
        op_name => SUBSTRB(p_process.name, 1, 64), target => 0, context => 0,
        sofar => p_percent, totalwork => 100, target_desc => 'Process Sentinel', units => '%');
    END IF;
  END show_progress;

  -- Takes back what is still ours.
  PROCEDURE show_end(p_process IN OUT NOCOPY sentinel_state.process_t) IS
    l_module VARCHAR2(64);
    l_action VARCHAR2(64);
  BEGIN
    DBMS_APPLICATION_INFO.READ_MODULE(l_module, l_action);
    IF l_action = p_process.own_action THEN
      l_action := NULL;
      DBMS_APPLICATION_INFO.SET_ACTION(NULL);
    END IF;
    IF l_module = p_process.own_module THEN
      DBMS_APPLICATION_INFO.SET_MODULE(NULL, l_action);
    END IF;
    p_process.own_action := NULL;
    p_process.own_module := NULL;
  END show_end;

  -- Events. What follows up to `record_event` runs inside the autonomous transaction of whoever calls it.

  FUNCTION priority_of(p_event_type IN VARCHAR2) RETURN PLS_INTEGER IS
  BEGIN
    RETURN CASE p_event_type
      WHEN c_event_error THEN 1
      WHEN c_event_completed THEN 2
      WHEN c_event_started THEN 3
      ELSE 5
    END;
  END priority_of;

  -- Takes the next p_count numbers of a stream and returns the last of them (law 5). Another acceptor may hold the
  -- row until its commit: a report waits a second for it at most, an end of a run five.
  FUNCTION take_numbers(
    p_tenant_id  IN VARCHAR2,
    p_stream_key IN VARCHAR2,
    p_count      IN PLS_INTEGER,
    p_patient    IN BOOLEAN
  ) RETURN NUMBER IS
    l_last_seq NUMBER;
  BEGIN
    IF p_patient THEN
      SELECT last_seq INTO l_last_seq FROM stream_counter
       WHERE tenant_id = p_tenant_id AND stream_key = p_stream_key
         FOR UPDATE WAIT 5;
    ELSE
      SELECT last_seq INTO l_last_seq FROM stream_counter
       WHERE tenant_id = p_tenant_id AND stream_key = p_stream_key
         FOR UPDATE WAIT 1;
    END IF;
    UPDATE stream_counter SET last_seq = l_last_seq + p_count
     WHERE tenant_id = p_tenant_id AND stream_key = p_stream_key;
    RETURN l_last_seq + p_count;
  EXCEPTION
    WHEN NO_DATA_FOUND THEN
      BEGIN
        INSERT INTO stream_counter (tenant_id, stream_key, last_seq)
        VALUES (p_tenant_id, p_stream_key, p_count);
        RETURN p_count;
      EXCEPTION
        -- Another session was first, and has committed by now.
        WHEN DUP_VAL_ON_INDEX THEN
          UPDATE stream_counter SET last_seq = last_seq + p_count
           WHERE tenant_id = p_tenant_id AND stream_key = p_stream_key
          RETURNING last_seq INTO l_last_seq;
          RETURN l_last_seq;
      END;
  END take_numbers;

  PROCEDURE enqueue_event(
    p_event_id   IN VARCHAR2,
    p_event_type IN VARCHAR2,
    p_process_id IN VARCHAR2,
    p_process    IN sentinel_state.process_t,
    p_stream_seq IN NUMBER,
    p_at         IN TIMESTAMP,
    p_data       IN JSON_OBJECT_T
  ) IS
    l_options    DBMS_AQ.ENQUEUE_OPTIONS_T;
    l_properties DBMS_AQ.MESSAGE_PROPERTIES_T;
    l_msgid      RAW(16);
    l_payload    JSON_OBJECT_T;
  BEGIN
    l_payload := JSON_OBJECT_T();
    l_payload.put('streamSeq', p_stream_seq);
    l_payload.put('source', 'plsql');
    put_text(l_payload, 'runId', p_process.run_id);
    l_payload.put('occurredAt', rfc3339(p_at));
    put_text(l_payload, 'traceparent', p_process.traceparent);
    put_text(l_payload, 'correlationId', p_process.correlation_id);
    l_payload.put('data', p_data);

    l_options.visibility := DBMS_AQ.ON_COMMIT;
    l_properties.priority := priority_of(p_event_type);
    l_properties.correlation := SUBSTRB(p_process_id, 1, 128);
    DBMS_AQ.ENQUEUE(
      queue_name         => c_queue,
      enqueue_options    => l_options,
      message_properties => l_properties,
      payload            => sentinel_event_t(
                              p_event_id, p_event_type, p_process_id, p_process.tenant_id,
                              SYS_EXTRACT_UTC(SYSTIMESTAMP), l_payload.to_clob()),
      msgid              => l_msgid);
  END enqueue_event;

  -- The rows of a new process and its first event. The process id is new, so nobody else has these keys.
  PROCEDURE record_start(
    p_process_id     IN VARCHAR2,
    p_process        IN sentinel_state.process_t,
    p_event_id       IN VARCHAR2,
    p_package_name   IN VARCHAR2,
    p_procedure_name IN VARCHAR2,
    p_at             IN TIMESTAMP,
    p_data           IN JSON_OBJECT_T,
    p_metadata       IN CLOB
  ) IS
    PRAGMA AUTONOMOUS_TRANSACTION;
    l_session_id VARCHAR2(64 CHAR);
  BEGIN
    IF c_watch_sessions THEN
      l_session_id := DBMS_SESSION.UNIQUE_SESSION_ID;
    END IF;
    INSERT INTO process_registry (
      tenant_id, process_id, process_type, package_name, procedure_name, status, registered_at, total_executions
    ) VALUES (
      p_process.tenant_id, p_process_id, 'PLSQL', p_package_name, p_procedure_name, 'RUNNING', p_at, 1
    );
    INSERT INTO process_live_status (
      tenant_id, process_id, run_id, run_no, status, started_at, last_update_at, last_life_at, correlation_id,
      history_key, session_id, metadata
    ) VALUES (
      p_process.tenant_id, p_process_id, p_event_id, 1, 'RUNNING', p_at, p_at, p_at, p_process.correlation_id,
      p_process.name, l_session_id, p_metadata
    );
    INSERT INTO stream_counter (tenant_id, stream_key, last_seq) VALUES (p_process.tenant_id, p_process_id, 1);
    enqueue_event(p_event_id, c_event_started, p_process_id, p_process, 1, p_at, p_data);
    COMMIT WRITE IMMEDIATE WAIT;
  EXCEPTION
    WHEN OTHERS THEN
      ROLLBACK;
      RAISE;
  END record_start;

  -- One event, after the report that waited for it. Reports may be lost with the instance, ends may not.
  PROCEDURE record_event(
    p_event_type IN VARCHAR2,
    p_process_id IN VARCHAR2,
    p_process    IN sentinel_state.process_t,
    p_at         IN TIMESTAMP,
    p_data       IN JSON_OBJECT_T
  ) IS
    PRAGMA AUTONOMOUS_TRANSACTION;
    l_count    PLS_INTEGER;
    l_last_seq NUMBER;
    l_report   BOOLEAN;
  BEGIN
    l_report := p_event_type IN (c_event_heartbeat, c_event_progress);
    l_count := CASE WHEN p_process.pending_type IS NULL THEN 1 ELSE 2 END;
    l_last_seq := take_numbers(p_process.tenant_id, p_process_id, l_count, NOT l_report);
    IF p_process.pending_type IS NOT NULL THEN
      enqueue_event(
        new_id, p_process.pending_type, p_process_id, p_process, l_last_seq - 1, p_process.pending_at,
        JSON_OBJECT_T.parse(p_process.pending_data));
    END IF;
    enqueue_event(new_id, p_event_type, p_process_id, p_process, l_last_seq, p_at, p_data);
    IF l_report THEN
      COMMIT WRITE BATCH NOWAIT;
    ELSE
      COMMIT WRITE IMMEDIATE WAIT;
    END IF;
  EXCEPTION
    WHEN OTHERS THEN
      ROLLBACK;
      RAISE;
  END record_event;

  -- Log lines.

  PROCEDURE write_logs IS
    PRAGMA AUTONOMOUS_TRANSACTION;
    l_logs    sentinel_state.log_tab_t;
    l_details clob_tab_t;
    l_stacks  clob_tab_t;
    l_refused PLS_INTEGER := 0;
    l_code    NUMBER;
    e_some_rows EXCEPTION;
    PRAGMA EXCEPTION_INIT(e_some_rows, -24381);
  BEGIN
    l_logs := sentinel_state.g_logs;
    FOR i IN 1 .. l_logs.COUNT LOOP
      l_details(i) := l_logs(i).details;
      l_stacks(i) := l_logs(i).stack_trace;
    END LOOP;
    BEGIN
      FORALL i IN 1 .. l_logs.COUNT SAVE EXCEPTIONS
        INSERT INTO process_logs (
          tenant_id, process_id, log_level, component, logged_at, correlation_id, trace_id, message, details, stack_trace
        ) VALUES (
          l_logs(i).tenant_id, l_logs(i).process_id, l_logs(i).log_level, l_logs(i).component, l_logs(i).logged_at,
          l_logs(i).correlation_id, l_logs(i).trace_id, l_logs(i).message, l_details(i), l_stacks(i)
        );
    EXCEPTION
      -- The other rows are in.
      WHEN e_some_rows THEN
        l_refused := SQL%BULK_EXCEPTIONS.COUNT;
        l_code := SQL%BULK_EXCEPTIONS(1).ERROR_CODE;
    END;
    COMMIT WRITE BATCH NOWAIT;
    sentinel_state.g_logs.DELETE;
    sentinel_state.g_logs_cs := NULL;
    IF l_refused > 0 THEN
      sentinel_state.g_logs_lost := sentinel_state.g_logs_lost + l_refused;
      note_error('flush_logs', -l_code, l_refused || ' log rows refused: ' || SQLERRM(-l_code));
    END IF;
  EXCEPTION
    WHEN OTHERS THEN
      ROLLBACK;
      IF sentinel_state.g_logs.COUNT >= c_logs_max THEN
        sentinel_state.g_logs_lost := sentinel_state.g_logs_lost + sentinel_state.g_logs.COUNT;
        sentinel_state.g_logs.DELETE;
      END IF;
      -- The next try is as far away as if these lines were new.
      sentinel_state.g_logs_cs := DBMS_UTILITY.GET_TIME;
      RAISE;
  END write_logs;

  PROCEDURE write_logs_if_due IS
  BEGIN
    IF sentinel_state.g_logs.COUNT > 0 AND has_passed(sentinel_state.g_logs_cs, c_log_wait_cs) THEN
      write_logs;
    END IF;
  END write_logs_if_due;

  PROCEDURE add_log(
    p_level       IN VARCHAR2,
    p_process_id  IN VARCHAR2,
    p_message     IN VARCHAR2,
    p_details     IN CLOB,
    p_stack_trace IN CLOB
  ) IS
    l_process sentinel_state.process_t;
    l_log     sentinel_state.log_t;
    l_element JSON_ELEMENT_T;
    l_note    JSON_OBJECT_T;
  BEGIN
    l_process := recall(p_process_id, NULL);
    remember(p_process_id, l_process);
    l_log.tenant_id := l_process.tenant_id;
    l_log.process_id := p_process_id;
    l_log.log_level := p_level;
    l_log.component := SUBSTR(l_process.name, 1, c_id_chars_max);
    l_log.logged_at := utc_now;
    l_log.correlation_id := l_process.correlation_id;
    l_log.trace_id := SUBSTR(l_process.traceparent, 4, 32);
    l_log.message := message_of(p_message);
    IF p_details IS NOT NULL AND DBMS_LOB.GETLENGTH(p_details) > 0 THEN
      l_element := element_of(p_details);
      IF DBMS_LOB.GETLENGTH(l_element.to_clob()) > c_text_chars_max THEN
        l_note := JSON_OBJECT_T();
        l_note.put('left_out', 'details of more than ' || c_text_chars_max || ' characters');
        l_log.details := l_note.to_string();
      ELSE
        l_log.details := l_element.to_string();
      END IF;
    END IF;
    IF p_stack_trace IS NOT NULL THEN
      l_log.stack_trace := text_of_clob(p_stack_trace);
    END IF;
    IF sentinel_state.g_logs.COUNT = 0 THEN
      sentinel_state.g_logs_cs := DBMS_UTILITY.GET_TIME;
    END IF;
    sentinel_state.g_logs(sentinel_state.g_logs.COUNT + 1) := l_log;
    IF p_level = 'ERROR' OR MOD(sentinel_state.g_logs.COUNT, c_log_batch) = 0 THEN
      write_logs;
    ELSE
      write_logs_if_due;
    END IF;
  END add_log;

  -- Reports and ends.

  PROCEDURE report(
    p_event_type IN VARCHAR2,
    p_process_id IN VARCHAR2,
    p_process    IN OUT NOCOPY sentinel_state.process_t,
    p_step       IN VARCHAR2,
    p_data       IN JSON_OBJECT_T
  ) IS
    l_data JSON_OBJECT_T;
    l_at   TIMESTAMP(6);
  BEGIN
    l_data := p_data;
    l_at := utc_now;
    -- One kind replaces what waits of it; any report replaces a heartbeat that waits, since it says as much.
    IF p_process.pending_type = p_event_type THEN
      l_data := merged(p_process.pending_data, l_data);
    END IF;
    IF p_process.pending_type IN (p_event_type, c_event_heartbeat) THEN
      p_process.pending_type := NULL;
      p_process.pending_data := NULL;
    END IF;
    IF NOT has_passed(p_process.sent_cs, c_report_gap_cs) AND (p_step IS NULL OR p_step = p_process.sent_step) THEN
      -- It waits, unless it is a heartbeat beside progress that waits already.
      IF p_process.pending_type IS NULL THEN
        p_process.pending_type := p_event_type;
        p_process.pending_at := l_at;
        p_process.pending_data := l_data.to_string();
      END IF;
      remember(p_process_id, p_process);
      RETURN;
    END IF;
    -- Remembered before it is sent, so that a queue that refuses is asked five times a second at most.
    p_process.sent_cs := DBMS_UTILITY.GET_TIME;
    remember(p_process_id, p_process);
    record_event(p_event_type, p_process_id, p_process, l_at, l_data);
    p_process.sent_step := NVL(p_step, p_process.sent_step);
    p_process.pending_type := NULL;
    p_process.pending_data := NULL;
    remember(p_process_id, p_process);
    write_logs_if_due;
  END report;

  PROCEDURE finish(
    p_event_type IN VARCHAR2,
    p_process_id IN VARCHAR2,
    p_process    IN OUT NOCOPY sentinel_state.process_t,
    p_data       IN JSON_OBJECT_T
  ) IS
  BEGIN
    show_end(p_process);
    sentinel_state.g_processes.DELETE(p_process_id);
    record_event(p_event_type, p_process_id, p_process, utc_now, p_data);
    IF sentinel_state.g_logs.COUNT > 0 THEN
      write_logs;
    END IF;
  END finish;

  -- What callers see. Nothing that can fail stands in a declaration: its error would pass the handler by.

  PROCEDURE start_process(
    p_package_name   IN VARCHAR2,
    p_procedure_name IN VARCHAR2,
    p_tenant_id      IN VARCHAR2 DEFAULT NULL,
    p_correlation_id IN VARCHAR2 DEFAULT NULL,
    p_metadata       IN CLOB DEFAULT NULL,
    p_process_id     OUT VARCHAR2
  ) IS
    l_process        sentinel_state.process_t;
    l_process_id     VARCHAR2(36);
    l_event_id       VARCHAR2(36);
    l_package_name   VARCHAR2(128 CHAR);
    l_procedure_name VARCHAR2(128 CHAR);
    l_data           JSON_OBJECT_T;
    l_at             TIMESTAMP(6);
  BEGIN
    -- Given even if everything else fails, so that the calls that follow know what they are about.
    l_process_id := new_id;
    p_process_id := l_process_id;
    l_at := utc_now;
    l_event_id := new_id;
    l_process.tenant_id := tenant_of_start(p_tenant_id);
    l_package_name := name_of(p_package_name, c_name_chars_max);
    l_procedure_name := name_of(p_procedure_name, c_name_chars_max);
    l_process.correlation_id := name_of(p_correlation_id, c_id_chars_max);
    IF REGEXP_LIKE(p_correlation_id, '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$') THEN
      l_process.traceparent := p_correlation_id;
    END IF;
    IF l_package_name IS NOT NULL AND l_procedure_name IS NOT NULL THEN
      l_process.name := l_package_name || '.' || l_procedure_name;
    ELSE
      l_process.name := NVL(l_procedure_name, l_package_name);
    END IF;

    l_data := JSON_OBJECT_T();
    l_data.put('process_type', 'PLSQL');
    put_text(l_data, 'package_name', l_package_name);
    put_text(l_data, 'procedure_name', l_procedure_name);
    put_text(l_data, 'correlation_id', l_process.correlation_id);
    put_metadata(l_data, p_metadata);

    show_start(l_process, l_package_name, l_procedure_name);
    remember(l_process_id, l_process);
    record_start(
      l_process_id, l_process, l_event_id, l_package_name, l_procedure_name, l_at, l_data,
      CASE WHEN l_data.has('metadata') THEN l_data.get_object('metadata').to_clob() END);
    -- From here on reports name the run; the start itself is the run.
    l_process.run_id := l_event_id;
    remember(l_process_id, l_process);
    write_logs_if_due;
  EXCEPTION
    WHEN OTHERS THEN
      note_error('start_process', SQLCODE, SQLERRM);
      IF must_pass(SQLCODE) THEN RAISE; END IF;
  END start_process;

  FUNCTION start_proc(
    p_package_name   IN VARCHAR2,
    p_procedure_name IN VARCHAR2,
    p_tenant_id      IN VARCHAR2 DEFAULT NULL
  ) RETURN VARCHAR2 IS
    l_process_id VARCHAR2(36);
  BEGIN
    start_process(
      p_package_name => p_package_name, p_procedure_name => p_procedure_name, p_tenant_id => p_tenant_id,
      p_process_id => l_process_id);
    RETURN l_process_id;
  END start_proc;

  PROCEDURE update_progress(
    p_process_id   IN VARCHAR2,
    p_current_step IN VARCHAR2 DEFAULT NULL,
    p_progress_pct IN NUMBER DEFAULT NULL,
    p_metadata     IN CLOB DEFAULT NULL
  ) IS
    l_process sentinel_state.process_t;
    l_step    VARCHAR2(200 CHAR);
    l_percent NUMBER;
    l_data    JSON_OBJECT_T;
  BEGIN
    l_process := recall(p_process_id, NULL);
    l_step := text_of(p_current_step, c_step_chars_max);
    l_percent := ROUND(LEAST(GREATEST(p_progress_pct, 0), 100), 2);
    show_progress(l_process, l_step, l_percent);
    l_data := JSON_OBJECT_T();
    put_text(l_data, 'current_step', l_step);
    IF l_percent IS NOT NULL THEN
      l_data.put('progress_percent', l_percent);
    END IF;
    put_metadata(l_data, p_metadata);
    report(c_event_progress, p_process_id, l_process, l_step, l_data);
  EXCEPTION
    WHEN OTHERS THEN
      note_error('update_progress', SQLCODE, SQLERRM);
      IF must_pass(SQLCODE) THEN RAISE; END IF;
  END update_progress;

  PROCEDURE heartbeat(
    p_process_id     IN VARCHAR2,
    p_status_message IN VARCHAR2 DEFAULT NULL
  ) IS
    l_process sentinel_state.process_t;
    l_data    JSON_OBJECT_T;
  BEGIN
    l_process := recall(p_process_id, NULL);
    l_data := JSON_OBJECT_T();
    put_text(l_data, 'message', text_of(p_status_message, c_text_chars_max));
    report(c_event_heartbeat, p_process_id, l_process, NULL, l_data);
  EXCEPTION
    WHEN OTHERS THEN
      note_error('heartbeat', SQLCODE, SQLERRM);
      IF must_pass(SQLCODE) THEN RAISE; END IF;
  END heartbeat;

  PROCEDURE complete_process(
    p_process_id IN VARCHAR2,
    p_result     IN CLOB DEFAULT NULL
  ) IS
    l_process sentinel_state.process_t;
    l_data    JSON_OBJECT_T;
  BEGIN
    l_process := recall(p_process_id, NULL);
    show_progress(l_process, NULL, CASE WHEN l_process.percent IS NOT NULL THEN 100 END);
    l_data := JSON_OBJECT_T();
    IF p_result IS NOT NULL AND DBMS_LOB.GETLENGTH(p_result) > 0 THEN
      l_data.put('result', element_of(p_result));
    END IF;
    finish(c_event_completed, p_process_id, l_process, l_data);
  EXCEPTION
    WHEN OTHERS THEN
      note_error('complete_process', SQLCODE, SQLERRM);
      IF must_pass(SQLCODE) THEN RAISE; END IF;
  END complete_process;

  PROCEDURE fail_process(
    p_process_id    IN VARCHAR2,
    p_error_code    IN VARCHAR2 DEFAULT NULL,
    p_error_message IN VARCHAR2 DEFAULT NULL,
    p_stack_trace   IN CLOB DEFAULT NULL
  ) IS
    l_process sentinel_state.process_t;
    l_data    JSON_OBJECT_T;
  BEGIN
    l_process := recall(p_process_id, NULL);
    l_data := JSON_OBJECT_T();
    put_text(l_data, 'error_code', name_of(p_error_code, c_code_chars_max));
    put_text(l_data, 'error_message', text_of(p_error_message, c_text_chars_max));
    IF p_stack_trace IS NOT NULL THEN
      put_text(l_data, 'stack_trace', text_of_clob(p_stack_trace));
    END IF;
    finish(c_event_error, p_process_id, l_process, l_data);
  EXCEPTION
    WHEN OTHERS THEN
      note_error('fail_process', SQLCODE, SQLERRM);
      IF must_pass(SQLCODE) THEN RAISE; END IF;
  END fail_process;

  PROCEDURE fail_current(p_process_id IN VARCHAR2) IS
    l_code      VARCHAR2(20);
    l_stack     VARCHAR2(32767);
    l_backtrace VARCHAR2(32767);
  BEGIN
    l_stack := DBMS_UTILITY.FORMAT_ERROR_STACK;
    l_backtrace := DBMS_UTILITY.FORMAT_ERROR_BACKTRACE;
    -- From the stack and not from SQLCODE, which is about this procedure's own handlers. ORA-01403 is -1403 here.
    l_code := '-' || LTRIM(REGEXP_SUBSTR(l_stack, '^ORA-([0-9]+)', 1, 1, NULL, 1), '0');
    fail_process(p_process_id, NULLIF(l_code, '-'), RTRIM(l_stack, CHR(10)), l_backtrace);
  EXCEPTION
    WHEN OTHERS THEN
      note_error('fail_current', SQLCODE, SQLERRM);
      IF must_pass(SQLCODE) THEN RAISE; END IF;
  END fail_current;

  PROCEDURE log_debug(p_process_id IN VARCHAR2, p_message IN VARCHAR2, p_details IN CLOB DEFAULT NULL) IS
  BEGIN
    add_log('DEBUG', p_process_id, p_message, p_details, NULL);
  EXCEPTION
    WHEN OTHERS THEN
      note_error('log_debug', SQLCODE, SQLERRM);
      IF must_pass(SQLCODE) THEN RAISE; END IF;
  END log_debug;

  PROCEDURE log_info(p_process_id IN VARCHAR2, p_message IN VARCHAR2, p_details IN CLOB DEFAULT NULL) IS
  BEGIN
    add_log('INFO', p_process_id, p_message, p_details, NULL);
  EXCEPTION
    WHEN OTHERS THEN
      note_error('log_info', SQLCODE, SQLERRM);
      IF must_pass(SQLCODE) THEN RAISE; END IF;
  END log_info;

  PROCEDURE log_warn(p_process_id IN VARCHAR2, p_message IN VARCHAR2, p_details IN CLOB DEFAULT NULL) IS
  BEGIN
    add_log('WARN', p_process_id, p_message, p_details, NULL);
  EXCEPTION
    WHEN OTHERS THEN
      note_error('log_warn', SQLCODE, SQLERRM);
      IF must_pass(SQLCODE) THEN RAISE; END IF;
  END log_warn;

  PROCEDURE log_error(
    p_process_id  IN VARCHAR2,
    p_message     IN VARCHAR2,
    p_details     IN CLOB DEFAULT NULL,
    p_stack_trace IN CLOB DEFAULT NULL
  ) IS
  BEGIN
    add_log('ERROR', p_process_id, p_message, p_details, p_stack_trace);
  EXCEPTION
    WHEN OTHERS THEN
      note_error('log_error', SQLCODE, SQLERRM);
      IF must_pass(SQLCODE) THEN RAISE; END IF;
  END log_error;

  PROCEDURE flush_logs(p_process_id IN VARCHAR2 DEFAULT NULL) IS
  BEGIN
    IF sentinel_state.g_logs.COUNT > 0 THEN
      write_logs;
    END IF;
  EXCEPTION
    WHEN OTHERS THEN
      note_error('flush_logs', SQLCODE, SQLERRM);
      IF must_pass(SQLCODE) THEN RAISE; END IF;
  END flush_logs;

  PROCEDURE notify_sentinel(
    p_event_type IN VARCHAR2,
    p_process_id IN VARCHAR2,
    p_tenant_id  IN VARCHAR2 DEFAULT NULL,
    p_payload    IN CLOB DEFAULT NULL
  ) IS
    l_process sentinel_state.process_t;
    l_type    VARCHAR2(50 CHAR);
    l_data    JSON_OBJECT_T;
  BEGIN
    l_process := recall(p_process_id, p_tenant_id);
    l_type := UPPER(name_of(p_event_type, 50));
    l_data := object_of(p_payload);
    CASE
      WHEN l_type IN (c_event_heartbeat, c_event_progress) THEN
        report(l_type, p_process_id, l_process, SUBSTR(l_data.get_string('current_step'), 1, c_step_chars_max), l_data);
      WHEN l_type IN (c_event_completed, c_event_error) THEN
        finish(l_type, p_process_id, l_process, l_data);
      ELSE
        -- A start opens a run of its own, and so belongs to none. A type that nobody knows is for the service to
        -- judge: it sets it aside, with its reason.
        IF l_type = c_event_started THEN
          l_process.run_id := NULL;
        END IF;
        record_event(l_type, p_process_id, l_process, utc_now, l_data);
    END CASE;
  EXCEPTION
    WHEN OTHERS THEN
      note_error('notify_sentinel', SQLCODE, SQLERRM);
      IF must_pass(SQLCODE) THEN RAISE; END IF;
  END notify_sentinel;

  FUNCTION errors_swallowed RETURN PLS_INTEGER IS
  BEGIN
    RETURN sentinel_state.g_errors;
  END errors_swallowed;

  FUNCTION last_error RETURN VARCHAR2 IS
  BEGIN
    RETURN sentinel_state.g_last_error;
  END last_error;
END sentinel_pkg;
/

CREATE OR REPLACE PACKAGE BODY sentinel_svc AS
  -- Advanced Queuing does not resolve synonyms: its names are always complete.
  c_owner                CONSTANT VARCHAR2(128) := '&sentinel_owner.';
  c_queue_name           CONSTANT VARCHAR2(128) := '&sentinel_queue.';
  c_exception_queue_name CONSTANT VARCHAR2(128) := 'AQ$_&sentinel_queue_table._E';
  c_context              CONSTANT VARCHAR2(128) := '&sentinel_context.';

  -- Messages of one batch: they are held in the memory of the session until they are fetched.
  c_batch_max            CONSTANT PLS_INTEGER := 4000;
  -- How long a process whose session is gone must have been silent: another session may go on with it, and what the
  -- old one said last may still be in the queue.
  c_dead_session_grace_s CONSTANT PLS_INTEGER := 10;
  -- How long a drop of a partition waits for sessions that use it.
  c_ddl_wait_s           CONSTANT PLS_INTEGER := 10;

  PROCEDURE dequeue_from(
    p_queue_name IN VARCHAR2,
    p_max        IN PLS_INTEGER,
    p_wait_s     IN PLS_INTEGER,
    p_cur        OUT SYS_REFCURSOR
  ) IS
    l_options    DBMS_AQ.DEQUEUE_OPTIONS_T;
    l_properties DBMS_AQ.MESSAGE_PROPERTIES_ARRAY_T := DBMS_AQ.MESSAGE_PROPERTIES_ARRAY_T();
    l_msgids     DBMS_AQ.MSGID_ARRAY_T;
    l_events     sentinel_event_tab_t := sentinel_event_tab_t();
    l_messages   sentinel_msg_tab_t := sentinel_msg_tab_t();
    l_count      PLS_INTEGER := 0;
    e_nothing_came EXCEPTION;
    PRAGMA EXCEPTION_INIT(e_nothing_came, -25228);
  BEGIN
    l_options.wait := p_wait_s;
    -- The first one each time: a message of higher priority that came later is seen.
    l_options.navigation := DBMS_AQ.FIRST_MESSAGE;
    l_options.visibility := DBMS_AQ.ON_COMMIT;
    BEGIN
      l_count := DBMS_AQ.DEQUEUE_ARRAY(
        queue_name               => p_queue_name,
        dequeue_options          => l_options,
        array_size               => LEAST(p_max, c_batch_max),
        message_properties_array => l_properties,
        payload_array            => l_events,
        msgid_array              => l_msgids);
    EXCEPTION
      -- This error and no other: a cancel (ORA-01013) must pass.
      WHEN e_nothing_came THEN
        l_count := 0;
    END;
    FOR i IN 1 .. l_count LOOP
      l_messages.EXTEND;
      l_messages(i) := sentinel_msg_t(
        l_msgids(i), l_properties(i).attempts, CAST(l_properties(i).enqueue_time AS TIMESTAMP),
        l_properties(i).priority, l_events(i));
    END LOOP;
    -- The type's own time is UTC to the microsecond; the queue's is a date in the session's zone.
    OPEN p_cur FOR
      SELECT RAWTOHEX(m.msgid) AS msgid,
             m.attempts AS attempts,
             NVL(m.event.timestamp_utc, m.enq_time) AS enq_time,
             m.priority AS priority,
             m.event.event_id AS event_id,
             m.event.event_type AS event_type,
             m.event.process_id AS process_id,
             m.event.tenant_id AS tenant_id,
             m.event.timestamp_utc AS timestamp_utc,
             m.event.payload AS payload
        FROM TABLE(l_messages) m;
  END dequeue_from;

  PROCEDURE dequeue_batch(p_max IN PLS_INTEGER, p_wait_s IN PLS_INTEGER, p_cur OUT SYS_REFCURSOR) IS
  BEGIN
    dequeue_from(c_owner || '.' || c_queue_name, p_max, p_wait_s, p_cur);
  END dequeue_batch;

  PROCEDURE enqueue(
    p_event_id   IN VARCHAR2,
    p_event_type IN VARCHAR2,
    p_process_id IN VARCHAR2,
    p_tenant_id  IN VARCHAR2,
    p_priority   IN PLS_INTEGER,
    p_payload    IN CLOB
  ) IS
    l_options    DBMS_AQ.ENQUEUE_OPTIONS_T;
    l_properties DBMS_AQ.MESSAGE_PROPERTIES_T;
    l_msgid      RAW(16);
  BEGIN
    l_options.visibility := DBMS_AQ.ON_COMMIT;
    l_properties.priority := p_priority;
    l_properties.correlation := SUBSTRB(p_process_id, 1, 128);
    DBMS_AQ.ENQUEUE(
      queue_name         => c_owner || '.' || c_queue_name,
      enqueue_options    => l_options,
      message_properties => l_properties,
      payload            => sentinel_event_t(
                              p_event_id, p_event_type, SUBSTR(p_process_id, 1, 100), p_tenant_id,
                              SYS_EXTRACT_UTC(SYSTIMESTAMP), p_payload),
      msgid              => l_msgid);
  END enqueue;

  PROCEDURE sweep_exceptions(p_max IN PLS_INTEGER, p_cur OUT SYS_REFCURSOR) IS
  BEGIN
    dequeue_from(c_owner || '.' || c_exception_queue_name, p_max, DBMS_AQ.NO_WAIT, p_cur);
  END sweep_exceptions;

  PROCEDURE set_tenant(p_tenant_id IN VARCHAR2) IS
  BEGIN
    IF p_tenant_id IS NULL THEN
      DBMS_SESSION.CLEAR_CONTEXT(c_context, NULL, 'TENANT_ID');
      DBMS_SESSION.CLEAR_IDENTIFIER;
    ELSE
      DBMS_SESSION.SET_CONTEXT(c_context, 'TENANT_ID', p_tenant_id);
      DBMS_SESSION.SET_IDENTIFIER(p_tenant_id);
    END IF;
  END set_tenant;

  PROCEDURE queue_state(p_cur OUT SYS_REFCURSOR) IS
  BEGIN
    OPEN p_cur FOR
      SELECT q.name AS queue_name,
             MAX(TRIM(q.enqueue_enabled)) AS enqueue_enabled,
             MAX(TRIM(q.dequeue_enabled)) AS dequeue_enabled,
             COUNT(CASE m.state WHEN 0 THEN 1 END) AS ready,
             COUNT(CASE m.state WHEN 1 THEN 1 END) AS waiting,
             COUNT(CASE m.state WHEN 3 THEN 1 END) AS expired,
             MIN(CASE m.state WHEN 0 THEN m.user_data.timestamp_utc END) AS oldest_enq_time
        FROM all_queues q
        LEFT OUTER JOIN &sentinel_queue_table. m ON m.q_name = q.name
       WHERE q.owner = c_owner
         AND q.name IN (c_queue_name, c_exception_queue_name)
       GROUP BY q.name
       ORDER BY CASE q.name WHEN c_queue_name THEN 0 ELSE 1 END;
  END queue_state;

  PROCEDURE dead_sessions(p_max IN PLS_INTEGER, p_cur OUT SYS_REFCURSOR) IS
    l_dead sentinel_process_tab_t := sentinel_process_tab_t();
  BEGIN
    FOR waited_for IN (
      SELECT tenant_id, process_id, session_id FROM process_live_status
       WHERE CASE WHEN status IN ('ACTIVE', 'RUNNING') THEN session_id END IS NOT NULL
         AND last_life_at < SYS_EXTRACT_UTC(SYSTIMESTAMP) - NUMTODSINTERVAL(c_dead_session_grace_s, 'SECOND')
    ) LOOP
      EXIT WHEN l_dead.COUNT >= p_max;
      IF NOT DBMS_SESSION.IS_SESSION_ALIVE(waited_for.session_id) THEN
        l_dead.EXTEND;
        l_dead(l_dead.COUNT) := sentinel_process_t(waited_for.tenant_id, waited_for.process_id);
      END IF;
    END LOOP;
    OPEN p_cur FOR
      SELECT d.tenant_id AS tenant_id, d.process_id AS process_id
        FROM TABLE(l_dead) d
       ORDER BY d.tenant_id, d.process_id;
  END dead_sessions;

  PROCEDURE session_kind(p_cur OUT SYS_REFCURSOR) IS
  BEGIN
    -- As text, so that the package compiles where the right has not been given yet.
    OPEN p_cur FOR q'[SELECT server, failover_type
      FROM sys.v_$session WHERE sid = TO_NUMBER(SYS_CONTEXT('USERENV', 'SID'))]';
  END session_kind;

  PROCEDURE open_writes(p_cur OUT SYS_REFCURSOR) IS
  BEGIN
    -- As text, see above. Both dates are cut to the second, so the age may be less than the true one by as much.
    OPEN p_cur FOR q'[SELECT NVL(MAX(CEIL((SYSDATE - t.start_date) * 86400) + 1), 0) AS age_s
      FROM sys.gv_$transaction t
      JOIN sys.gv_$session s ON s.inst_id = t.inst_id AND s.saddr = t.ses_addr
     WHERE s.module = 'process-sentinel' AND (s.action LIKE 'logs%' OR s.action LIKE 'listener%')]';
  END open_writes;

  PROCEDURE drop_partitions(p_table_name IN VARCHAR2, p_before IN TIMESTAMP, p_dropped OUT PLS_INTEGER) IS
    l_end TIMESTAMP(6);
  BEGIN
    p_dropped := 0;
    IF p_table_name IS NULL OR p_table_name NOT IN ('EVENTS', 'PROCESS_LOGS') THEN
      RAISE_APPLICATION_ERROR(-20009, 'p_table_name is neither EVENTS nor PROCESS_LOGS');
    END IF;
    EXECUTE IMMEDIATE 'ALTER SESSION SET ddl_lock_timeout = ' || c_ddl_wait_s;
    -- The first partition, in the past and empty, is the one that a range can't lose.
    FOR part IN (
      SELECT partition_name, high_value FROM all_tab_partitions
       WHERE table_owner = c_owner AND table_name = p_table_name AND partition_position > 1
       ORDER BY partition_position
    ) LOOP
      EXECUTE IMMEDIATE 'SELECT ' || part.high_value || ' FROM dual' INTO l_end;
      EXIT WHEN l_end > p_before;
      EXECUTE IMMEDIATE 'ALTER TABLE ' || DBMS_ASSERT.ENQUOTE_NAME(c_owner) || '.' || p_table_name
        || ' DROP PARTITION ' || DBMS_ASSERT.ENQUOTE_NAME(part.partition_name) || ' UPDATE INDEXES';
      p_dropped := p_dropped + 1;
    END LOOP;
  END drop_partitions;
END sentinel_svc;
/

-- Compile errors are warnings to SQL*Plus, so they are looked for.
DECLARE
  l_problems VARCHAR2(4000);
BEGIN
  FOR problem IN (
    SELECT e.name, e.type, e.line, e.text FROM all_errors e
     WHERE e.owner = SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA')
       AND e.attribute = 'ERROR' AND e.name IN ('SENTINEL_STATE', 'SENTINEL_PKG', 'SENTINEL_SVC')
     ORDER BY e.name, e.type, e.sequence
  ) LOOP
    l_problems := SUBSTR(l_problems || problem.type || ' ' || problem.name || ' line ' || problem.line || ': '
      || problem.text || CHR(10), 1, 1000);
  END LOOP;
  IF l_problems IS NOT NULL THEN
    RAISE_APPLICATION_ERROR(-20002, 'Compile errors: ' || l_problems);
  END IF;
END;
/

-- Who may do what. The service works on the tables; the producer only calls the package, which enqueues for it.
-- A user that does not exist yet (ORA-01917) gets its grants when this script runs again.
DECLARE
  PROCEDURE give(p_privileges IN VARCHAR2, p_object IN VARCHAR2, p_user IN VARCHAR2) IS
    e_no_such_user EXCEPTION;
    PRAGMA EXCEPTION_INIT(e_no_such_user, -1917);
    e_own_grant EXCEPTION;
    PRAGMA EXCEPTION_INIT(e_own_grant, -1749);
  BEGIN
    EXECUTE IMMEDIATE 'GRANT ' || p_privileges || ' ON ' || p_object || ' TO ' || p_user;
  EXCEPTION
    WHEN e_no_such_user THEN
      DBMS_OUTPUT.PUT_LINE('There is no user ' || p_user || ' yet: run this script again once there is.');
    -- The owner is the service or the producer itself, as in a small test database.
    WHEN e_own_grant THEN
      NULL;
  END give;
BEGIN
  give('EXECUTE', 'sentinel_pkg', '&sentinel_producer.');
  give('EXECUTE', 'sentinel_pkg', '&sentinel_service.');
  give('EXECUTE', 'sentinel_svc', '&sentinel_service.');
  FOR owned IN (
    SELECT COLUMN_VALUE AS table_name FROM TABLE(SYS.ODCIVARCHAR2LIST(
      'process_registry', 'process_live_status', 'process_runs', 'process_history', 'process_logs', 'events',
      'idempotency', 'event_identity', 'stream_counter', 'stream_state', 'dead_letter', 'outbox', 'slo_samples',
      'jobs', 'approvals', 'plugins', 'sinks', 'sdk_errors', 'sentinel_setting'))
  ) LOOP
    give('SELECT, INSERT, UPDATE, DELETE', owned.table_name, '&sentinel_service.');
  END LOOP;
  give('SELECT', 'sentinel_schema_version', '&sentinel_service.');
END;
/

-- What is installed. Without a checksum: that is what `sentinel migrate` adds.
MERGE INTO sentinel_schema_version d
USING (
  SELECT 4 AS version, 'sentinel_pkg' AS name FROM dual
) s ON (d.version = s.version)
WHEN NOT MATCHED THEN INSERT (version, name) VALUES (s.version, s.name)
/

COMMIT
/
