-- Makes the object types that a queue message and a dequeued batch are made of.
-- Run as the owner (or as a DBA); a second run changes nothing: a type that exists is kept, because the queue table
-- depends on it. The queue's payload never changes: everything that may grow travels in its JSON. If it ever must
-- change, that is a new type and a new queue beside the old ones.
--
-- Substitution variables: the DEFINE lines below, one name and one default each, are read by SQL*Plus, by SQLcl and by
-- `sentinel migrate`. Their form (DEFINE name = value, value without quotes) is machine-readable: keep it.
DEFINE sentinel_owner = SENTINEL

SET DEFINE ON SQLBLANKLINES ON VERIFY OFF FEEDBACK OFF SERVEROUTPUT ON
WHENEVER OSERROR EXIT FAILURE
WHENEVER SQLERROR EXIT FAILURE ROLLBACK

ALTER SESSION SET CURRENT_SCHEMA = &sentinel_owner.
/

-- One message. timestamp_utc is the database clock at enqueue; the caller's own time, the run, the number in the
-- stream and the trace are in the payload, a JSON object.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TYPE sentinel_event_t AS OBJECT (
  event_id      VARCHAR2(100 CHAR),
  event_type    VARCHAR2(50 CHAR),
  process_id    VARCHAR2(100 CHAR),
  tenant_id     VARCHAR2(50 CHAR),
  timestamp_utc TIMESTAMP(6),
  payload       CLOB
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TYPE sentinel_event_tab_t AS TABLE OF sentinel_event_t]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- A dequeued message with what the queue knows of it. A schema type and not one of the package, so that
-- SELECT .. FROM TABLE(..) takes it on 19c too.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TYPE sentinel_msg_t AS OBJECT (
  msgid    RAW(16),
  attempts NUMBER,
  enq_time TIMESTAMP(6),
  priority NUMBER,
  event    sentinel_event_t
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TYPE sentinel_msg_tab_t AS TABLE OF sentinel_msg_t]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- Pairs of (tenant, process), for the answer about sessions that are gone.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TYPE sentinel_process_t AS OBJECT (
  tenant_id  VARCHAR2(50 CHAR),
  process_id VARCHAR2(100 CHAR)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TYPE sentinel_process_tab_t AS TABLE OF sentinel_process_t]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- Compile errors are warnings to SQL*Plus, so they are looked for.
DECLARE
  l_problems VARCHAR2(4000);
BEGIN
  FOR problem IN (
    SELECT e.name, e.line, e.text FROM all_errors e
     WHERE e.owner = SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA')
       AND e.attribute = 'ERROR' AND e.name LIKE 'SENTINEL%' AND e.type = 'TYPE'
     ORDER BY e.name, e.sequence
  ) LOOP
    l_problems := SUBSTR(l_problems || problem.name || ' line ' || problem.line || ': ' || problem.text || CHR(10), 1, 1000);
  END LOOP;
  IF l_problems IS NOT NULL THEN
    RAISE_APPLICATION_ERROR(-20002, 'Compile errors: ' || l_problems);
  END IF;
END;
/
