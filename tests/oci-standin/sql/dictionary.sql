-- More of the dictionary, as far as `sentinel doctor` asks it: all is well in it, and a test breaks one thing at a time. The
-- harness runs this once in the template of all databases, after standin.sql.
--
-- A view that a user may not read is one that is not there: a test renames it.
SET search_path = standin, sentinel, pg_catalog;

CREATE FUNCTION standin.sessiontimezone() RETURNS varchar LANGUAGE sql STABLE AS
$$ SELECT session_zone FROM standin.setting $$;
CREATE FUNCTION standin.dbtimezone() RETURNS varchar LANGUAGE sql IMMUTABLE AS $$ SELECT '+00:00'::varchar $$;
CREATE VIEW standin.v$timezone_file (filename, version) AS VALUES ('timezlrg_32.dat'::varchar, 32::numeric);

-- Grants. The service's user has what 004_sentinel_pkg.sql gives it on the tables that there are, without what a test takes
-- from it, and with what a test adds.
CREATE TABLE standin.taken (table_name varchar, privilege varchar);
CREATE TABLE standin.added (grantee varchar, table_name varchar, privilege varchar);
CREATE VIEW standin.dba_tab_privs (grantee, owner, table_name, grantor, privilege, grantable) AS
  SELECT g.grantee, 'SENTINEL'::varchar, g.table_name, 'SENTINEL'::varchar, g.privilege, 'NO'::varchar
  FROM (
    SELECT 'SENTINEL_SVC'::varchar AS grantee, t.table_name, p.privilege
    FROM standin.all_tables t CROSS JOIN (VALUES ('SELECT'::varchar), ('INSERT'), ('UPDATE'), ('DELETE')) AS p (privilege)
    WHERE t.table_name <> 'SENTINEL_SCHEMA_VERSION' OR p.privilege = 'SELECT'
    UNION ALL
    VALUES ('SENTINEL_SVC', 'SENTINEL_PKG', 'EXECUTE'), ('SENTINEL_SVC', 'SENTINEL_SVC', 'EXECUTE'),
           ('CLM_APP', 'SENTINEL_PKG', 'EXECUTE')
    UNION ALL
    SELECT grantee, table_name, privilege FROM standin.added) AS g
  WHERE g.grantee <> 'SENTINEL_SVC'
     OR NOT EXISTS (SELECT 1 FROM standin.taken x WHERE x.table_name = g.table_name AND x.privilege = g.privilege);
-- What others hold is theirs to see, and the owner's.
CREATE VIEW standin.all_tab_privs (grantor, grantee, table_schema, table_name, privilege, grantable) AS
  SELECT grantor, grantee, owner, table_name, privilege, grantable FROM standin.dba_tab_privs
  WHERE grantee IN ('SENTINEL_SVC', 'PUBLIC');
CREATE TABLE standin.session_roles (role varchar);
CREATE TABLE standin.user_role_privs (username varchar, granted_role varchar);
CREATE TABLE standin.user_sys_privs (username varchar, privilege varchar);
INSERT INTO standin.user_sys_privs VALUES ('SENTINEL_SVC', 'CREATE SESSION');
CREATE TABLE standin.user_users (username varchar, account_status varchar, lock_date timestamp(0), expiry_date timestamp(0));
INSERT INTO standin.user_users VALUES ('SENTINEL_SVC', 'OPEN', NULL, NULL);

-- Objects: the tables that there are, and packages, whose bodies only a DBA sees.
CREATE TABLE standin.package (object_type varchar, object_name varchar, status varchar NOT NULL DEFAULT 'VALID');
INSERT INTO standin.package (object_type, object_name) VALUES
  ('PACKAGE', 'SENTINEL_PKG'), ('PACKAGE', 'SENTINEL_SVC'), ('PACKAGE', 'SENTINEL_STATE'),
  ('PACKAGE BODY', 'SENTINEL_PKG'), ('PACKAGE BODY', 'SENTINEL_SVC');
CREATE VIEW standin.dba_objects (owner, object_name, object_type, status) AS
  SELECT 'SENTINEL'::varchar, object_name, object_type, status FROM standin.package
  UNION ALL SELECT owner, table_name, 'TABLE', 'VALID' FROM standin.all_tables;
CREATE VIEW standin.all_objects AS SELECT * FROM standin.dba_objects WHERE object_type <> 'PACKAGE BODY';
CREATE TABLE standin.unusable_index (index_name varchar);
CREATE VIEW standin.all_indexes (owner, index_name, table_name, status) AS
  SELECT 'SENTINEL'::varchar, pg_catalog.upper(indexname)::varchar, pg_catalog.upper(tablename)::varchar,
         CASE WHEN EXISTS (SELECT 1 FROM standin.unusable_index u WHERE u.index_name = pg_catalog.upper(indexname))
              THEN 'UNUSABLE' ELSE 'VALID' END::varchar
  FROM pg_catalog.pg_indexes WHERE schemaname = 'sentinel';
CREATE TABLE standin.all_ind_partitions (index_owner varchar, index_name varchar, partition_name varchar, status varchar);

-- Queues and room.
CREATE VIEW standin.dba_queues AS SELECT * FROM standin.all_queues;
CREATE TABLE standin.dba_segments (owner varchar, segment_name varchar, segment_type varchar, bytes numeric);
INSERT INTO standin.dba_segments VALUES
  ('SENTINEL', 'SENTINEL_QUEUE_TAB', 'TABLE', 65536), ('SENTINEL', 'AQ$_SENTINEL_QUEUE_TAB_I', 'INDEX', 65536),
  ('SENTINEL', 'AQ$_SENTINEL_QUEUE_TAB_T', 'INDEX', 65536);
CREATE TABLE standin.all_part_tables (owner varchar, table_name varchar, interval varchar);
CREATE TABLE standin.dba_tablespace_usage_metrics (tablespace_name varchar, used_percent numeric);
INSERT INTO standin.dba_tablespace_usage_metrics VALUES ('USERS', 12.5), ('SYSTEM', 99);
CREATE TABLE standin.dba_ts_quotas (tablespace_name varchar, username varchar, bytes numeric, max_bytes numeric);
INSERT INTO standin.dba_ts_quotas VALUES ('USERS', 'SENTINEL', 1048576, -1);
