-- Optional, Enterprise Edition: the database itself keeps tenants apart (Virtual Private Database), on top of the
-- tenant predicate that every statement of the service carries. Run as a DBA (SYS) after 004; run again, it makes the
-- same policies anew.
--
-- The owner's packages see everything. The service sees the tenant it has named, by sentinel_svc.set_tenant or by the
-- client identifier, and everything where it has named none: listeners, reaper and log writers work for all tenants
-- and never name one. Everybody else, such as a user for reports, sees the tenant of the context that only
-- sentinel_svc can set, and so, as a rule, nothing.
--
-- Substitution variables: see 001.
DEFINE sentinel_owner = SENTINEL
DEFINE sentinel_service = SENTINEL_SVC
DEFINE sentinel_context = SENTINEL_CTX

SET DEFINE ON SQLBLANKLINES ON VERIFY OFF FEEDBACK OFF SERVEROUTPUT ON
WHENEVER OSERROR EXIT FAILURE
WHENEVER SQLERROR EXIT FAILURE ROLLBACK

-- The texts are constant, so that statements of all tenants share their cursors. The invoker is who runs the
-- statement: inside a package with its owner's rights, that is the owner, whoever is logged in.
CREATE OR REPLACE FUNCTION &sentinel_owner..sentinel_tenant_predicate(
  p_schema IN VARCHAR2,
  p_object IN VARCHAR2
) RETURN VARCHAR2 AUTHID DEFINER IS
BEGIN
  RETURN CASE SYS_CONTEXT('USERENV', 'POLICY_INVOKER')
    WHEN '&sentinel_owner.' THEN
      NULL
    WHEN '&sentinel_service.' THEN
      'COALESCE(SYS_CONTEXT(''&sentinel_context.'', ''TENANT_ID''), SYS_CONTEXT(''USERENV'', ''CLIENT_IDENTIFIER'')'
      || ', tenant_id) = tenant_id'
    ELSE
      'tenant_id = SYS_CONTEXT(''&sentinel_context.'', ''TENANT_ID'')'
  END;
END sentinel_tenant_predicate;
/

DECLARE
  l_problems VARCHAR2(4000);
BEGIN
  FOR problem IN (
    SELECT e.line, e.text FROM dba_errors e
     WHERE e.owner = '&sentinel_owner.' AND e.name = 'SENTINEL_TENANT_PREDICATE' AND e.attribute = 'ERROR'
     ORDER BY e.sequence
  ) LOOP
    l_problems := SUBSTR(l_problems || 'line ' || problem.line || ': ' || problem.text || CHR(10), 1, 1000);
  END LOOP;
  IF l_problems IS NOT NULL THEN
    RAISE_APPLICATION_ERROR(-20002, 'Compile errors of sentinel_tenant_predicate: ' || l_problems);
  END IF;
END;
/

-- Asked for each statement (DYNAMIC): a session that calls a package and then a table is two invokers.
DECLARE
  PROCEDURE guard(p_table_name IN VARCHAR2) IS
    e_no_policy EXCEPTION;
    PRAGMA EXCEPTION_INIT(e_no_policy, -28102);
  BEGIN
    BEGIN
      DBMS_RLS.DROP_POLICY(
        object_schema => '&sentinel_owner.', object_name => p_table_name, policy_name => 'SENTINEL_TENANT');
    EXCEPTION
      WHEN e_no_policy THEN
        NULL;
    END;
    DBMS_RLS.ADD_POLICY(
      object_schema   => '&sentinel_owner.',
      object_name     => p_table_name,
      policy_name     => 'SENTINEL_TENANT',
      function_schema => '&sentinel_owner.',
      policy_function => 'SENTINEL_TENANT_PREDICATE',
      statement_types => 'SELECT,INSERT,UPDATE,DELETE',
      update_check    => TRUE,
      policy_type     => DBMS_RLS.DYNAMIC);
  END guard;
BEGIN
  FOR owned IN (
    SELECT COLUMN_VALUE AS table_name FROM TABLE(SYS.ODCIVARCHAR2LIST(
      'PROCESS_REGISTRY', 'PROCESS_LIVE_STATUS', 'PROCESS_RUNS', 'PROCESS_HISTORY', 'PROCESS_LOGS', 'EVENTS',
      'IDEMPOTENCY', 'EVENT_IDENTITY', 'STREAM_COUNTER', 'STREAM_STATE', 'DEAD_LETTER', 'OUTBOX', 'JOBS', 'APPROVALS'))
  ) LOOP
    guard(owned.table_name);
  END LOOP;
END;
/
