-- What Oracle has and PostgreSQL has not, as far as the project's statements use it; and the queue. The harness runs this
-- once in the template of all databases. The project's own tables come from sql/oracle/002, through the stand-in.
--
-- The search path of a session is sentinel, standin, pg_catalog: what is defined here wins over what PostgreSQL has.
CREATE SCHEMA standin;
CREATE SCHEMA sentinel;
SET search_path = standin, sentinel, pg_catalog;

-- How far a test has moved the database's clock, or the file in which it holds it (microseconds since 1970), and how the
-- queue behaves.
CREATE TABLE standin.setting (
  clock_offset interval NOT NULL DEFAULT '0',
  clock_file   text,
  max_retries  integer NOT NULL DEFAULT 3,
  retry_delay  interval NOT NULL DEFAULT '10 seconds',
  enqueue_enabled boolean NOT NULL DEFAULT true,
  dequeue_enabled boolean NOT NULL DEFAULT true,
  -- What a session is told of itself.
  network_protocol varchar NOT NULL DEFAULT 'tcps',
  session_zone     varchar NOT NULL DEFAULT '+00:00',
  server_process   varchar NOT NULL DEFAULT 'DEDICATED',
  failover         varchar NOT NULL DEFAULT 'NONE'
);
INSERT INTO standin.setting DEFAULT VALUES;

CREATE TABLE standin.dual (dummy varchar(1));
INSERT INTO standin.dual VALUES ('X');

CREATE FUNCTION standin.systimestamp() RETURNS timestamptz(6) LANGUAGE sql STABLE AS
$$ SELECT COALESCE(timestamptz 'epoch' + pg_catalog.pg_read_file(clock_file, 0, 64, true)::bigint * interval '1 microsecond',
                   pg_catalog.clock_timestamp()) + clock_offset FROM standin.setting $$;
CREATE FUNCTION standin.sysdate() RETURNS timestamp(0) LANGUAGE sql STABLE AS
$$ SELECT pg_catalog.date_trunc('second', standin.systimestamp() AT TIME ZONE 'UTC') $$;
CREATE FUNCTION standin.sys_extract_utc(timestamptz) RETURNS timestamp(6) LANGUAGE sql IMMUTABLE AS
$$ SELECT $1 AT TIME ZONE 'UTC' $$;
CREATE FUNCTION standin.from_tz(timestamp, text) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS
$$ SELECT $1 AT TIME ZONE CASE WHEN $2 IN ('UTC', '+00:00', 'GMT') THEN 'UTC' END $$;

-- An offset in another zone is refused by NULL above; intervals by their unit, an unknown one is an error.
CREATE FUNCTION standin.numtodsinterval(numeric, text) RETURNS interval LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN CASE pg_catalog.upper($2)
    WHEN 'DAY' THEN $1 * interval '1 day'
    WHEN 'HOUR' THEN $1 * interval '1 hour'
    WHEN 'MINUTE' THEN $1 * interval '1 minute'
    WHEN 'SECOND' THEN $1 * interval '1 second'
  END;
END $$;

CREATE FUNCTION standin.nvl(anycompatible, anycompatible) RETURNS anycompatible LANGUAGE sql IMMUTABLE AS
$$ SELECT COALESCE($1, $2) $$;
CREATE FUNCTION standin.nvl2(anyelement, anycompatible, anycompatible) RETURNS anycompatible LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN $1 IS NULL THEN $3 ELSE $2 END $$;
CREATE FUNCTION standin.hextoraw(text) RETURNS bytea LANGUAGE sql IMMUTABLE AS
$$ SELECT pg_catalog.decode($1, 'hex') $$;
CREATE FUNCTION standin.rawtohex(bytea) RETURNS varchar LANGUAGE sql IMMUTABLE AS
$$ SELECT pg_catalog.upper(pg_catalog.encode($1, 'hex'))::varchar $$;
CREATE FUNCTION standin.sys_guid() RETURNS bytea LANGUAGE sql VOLATILE AS
$$ SELECT pg_catalog.uuid_send(pg_catalog.gen_random_uuid()) $$;
CREATE FUNCTION standin.to_clob(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT $1 $$;
CREATE FUNCTION standin.to_number(text) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$ SELECT $1::numeric $$;
CREATE FUNCTION standin.to_char(numeric) RETURNS varchar LANGUAGE sql IMMUTABLE AS
$$ SELECT CASE WHEN $1 = pg_catalog.trunc($1) THEN pg_catalog.trunc($1)::varchar ELSE pg_catalog.trim_scale($1)::varchar END $$;
CREATE FUNCTION standin.lengthb(text) RETURNS integer LANGUAGE sql IMMUTABLE AS
$$ SELECT pg_catalog.octet_length($1) $$;
CREATE FUNCTION standin.instr(text, text) RETURNS integer LANGUAGE sql IMMUTABLE AS
$$ SELECT pg_catalog.strpos($1, $2) $$;
-- An empty text is NULL: it is what a replaced part becomes, and what a text becomes of which nothing is left.
CREATE FUNCTION standin.replace(text, text, text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT NULLIF(pg_catalog.replace($1, $2, COALESCE($3, '')), '') $$;
CREATE FUNCTION standin.joined(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS
$$ SELECT NULLIF(pg_catalog.concat($1, $2), '') $$;
CREATE OPERATOR standin.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = standin.joined);

CREATE FUNCTION standin.is_json(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF $1 IS NULL THEN
    RETURN NULL;
  END IF;
  -- As 19c has it: an object or an array.
  RETURN pg_catalog.json_typeof($1::json) IN ('object', 'array');
EXCEPTION WHEN others THEN
  RETURN false;
END $$;
CREATE FUNCTION standin.json_value(text, text) RETURNS varchar LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  found jsonb;
BEGIN
  found := pg_catalog.jsonb_path_query_first($1::jsonb, $2::jsonpath);
  RETURN CASE WHEN pg_catalog.jsonb_typeof(found) IN ('object', 'array', 'null') THEN NULL ELSE found #>> '{}' END;
EXCEPTION WHEN others THEN
  RETURN NULL;
END $$;

CREATE SCHEMA dbms_lob;
CREATE FUNCTION dbms_lob.getlength(text) RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT pg_catalog.length($1) $$;
CREATE FUNCTION dbms_lob.substr(text, numeric, numeric) RETURNS varchar LANGUAGE sql IMMUTABLE AS
$$ SELECT pg_catalog.substr($1, $3::integer, $2::integer)::varchar $$;

-- The session's own facts; the tenant is set by sentinel_svc.set_tenant, the rest at connect.
CREATE FUNCTION standin.sys_context(text, text) RETURNS varchar LANGUAGE sql STABLE AS $$
  SELECT CASE pg_catalog.upper($1) || '.' || pg_catalog.upper($2)
    WHEN 'USERENV.CURRENT_SCHEMA' THEN 'SENTINEL'
    WHEN 'USERENV.SESSION_USER' THEN 'SENTINEL_SVC'
    WHEN 'USERENV.CURRENT_USER' THEN 'SENTINEL_SVC'
    WHEN 'USERENV.DB_NAME' THEN pg_catalog.upper(pg_catalog.current_database())
    WHEN 'USERENV.SERVICE_NAME' THEN pg_catalog.current_database()::text
    WHEN 'USERENV.INSTANCE_NAME' THEN 'STANDIN'
    WHEN 'USERENV.NETWORK_PROTOCOL' THEN (SELECT network_protocol FROM standin.setting)
    WHEN 'USERENV.SID' THEN pg_catalog.pg_backend_pid()::text
    WHEN 'USERENV.SESSIONID' THEN pg_catalog.pg_backend_pid()::text
    WHEN 'USERENV.CLIENT_IDENTIFIER' THEN NULLIF(pg_catalog.current_setting('standin.client_identifier', true), '')
    WHEN 'SENTINEL_CTX.TENANT_ID' THEN NULLIF(pg_catalog.current_setting('standin.tenant_id', true), '')
  END::varchar $$;

-- The dictionary, as far as it is asked. A script that looks for compile errors finds none.
CREATE VIEW standin.nls_database_parameters (parameter, value) AS VALUES
  ('NLS_CHARACTERSET'::varchar, 'AL32UTF8'::varchar), ('NLS_NCHAR_CHARACTERSET', 'AL16UTF16'),
  ('NLS_LENGTH_SEMANTICS', 'BYTE'), ('NLS_RDBMS_VERSION', '19.0.0.0.0');
CREATE VIEW standin.nls_session_parameters AS SELECT * FROM standin.nls_database_parameters;
CREATE VIEW standin.v$version (banner, banner_full) AS
  SELECT b, b FROM (SELECT 'PostgreSQL behind the stand-in: not Oracle'::varchar AS b) AS one;
CREATE VIEW standin.product_component_version (product, version, version_full, status) AS
  VALUES ('stand-in, not Oracle'::varchar, '19.0.0.0.0'::varchar, '19.0.0.0.0'::varchar, 'test'::varchar);
CREATE VIEW standin.v$instance (instance_name, host_name, version, status) AS
  VALUES ('STANDIN'::varchar, 'localhost'::varchar, '19.0.0.0.0'::varchar, 'OPEN'::varchar);
CREATE VIEW standin.v$database (name, db_unique_name, open_mode) AS
  SELECT pg_catalog.upper(pg_catalog.current_database())::varchar, 'STANDIN'::varchar, 'READ WRITE'::varchar;
CREATE VIEW standin.v$option (parameter, value) AS VALUES ('Partitioning'::varchar, 'FALSE'::varchar);
CREATE VIEW standin.v$session AS
  SELECT pid::numeric AS sid, 1::numeric AS "serial#", pid::varchar AS audsid, 'SENTINEL_SVC'::varchar AS username,
         server_process AS server, failover AS failover_method, failover AS failover_type,
         COALESCE(substring(application_name FROM 13), '')::varchar AS module, 'ACTIVE'::varchar AS status
  FROM pg_catalog.pg_stat_activity, standin.setting WHERE datname = pg_catalog.current_database();
CREATE VIEW standin.all_tables (owner, table_name, partitioned, tablespace_name) AS
  SELECT 'SENTINEL'::varchar, pg_catalog.upper(tablename)::varchar, 'NO'::varchar, 'USERS'::varchar
  FROM pg_catalog.pg_tables WHERE schemaname = 'sentinel';
CREATE VIEW standin.user_tables AS SELECT * FROM standin.all_tables;
CREATE VIEW standin.all_tab_columns (owner, table_name, column_name) AS
  SELECT 'SENTINEL'::varchar, pg_catalog.upper(table_name)::varchar, pg_catalog.upper(column_name)::varchar
  FROM information_schema.columns WHERE table_schema = 'sentinel';
CREATE VIEW standin.user_tab_columns AS SELECT * FROM standin.all_tab_columns;
CREATE TABLE standin.all_errors (owner varchar, name varchar, type varchar, sequence numeric, line numeric,
  position numeric, text varchar, attribute varchar);
CREATE VIEW standin.user_errors AS SELECT * FROM standin.all_errors;
CREATE TABLE standin.user_tab_partitions (table_name varchar, partition_name varchar, high_value text,
  partition_position numeric, num_rows numeric);
CREATE VIEW standin.all_tab_partitions AS
  SELECT 'SENTINEL'::varchar AS table_owner, p.* FROM standin.user_tab_partitions p;
CREATE VIEW standin.all_queues (owner, name, queue_table, queue_type, max_retries, retry_delay, enqueue_enabled, dequeue_enabled) AS
  SELECT 'SENTINEL'::varchar, 'SENTINEL_QUEUE'::varchar, 'SENTINEL_QUEUE_TAB'::varchar, 'NORMAL_QUEUE'::varchar,
         max_retries::numeric, pg_catalog.date_part('epoch', retry_delay)::numeric,
         CASE WHEN enqueue_enabled THEN '  YES  ' ELSE '  NO  ' END::varchar,
         CASE WHEN dequeue_enabled THEN '  YES  ' ELSE '  NO  ' END::varchar
  FROM standin.setting;
CREATE VIEW standin.user_queues AS SELECT * FROM standin.all_queues;

-- The queue. A message is in one of two queues: the one, or the exception queue.
CREATE TABLE standin.message (
  place      bigserial PRIMARY KEY,
  msgid      bytea NOT NULL DEFAULT standin.sys_guid(),
  exception  boolean NOT NULL DEFAULT false,
  priority   integer NOT NULL,
  enq_time   timestamp(6) NOT NULL DEFAULT standin.sys_extract_utc(standin.systimestamp()),
  event_id   varchar(100), event_type varchar(50), process_id varchar(100), tenant_id varchar(50),
  timestamp_utc timestamp(6) DEFAULT standin.sys_extract_utc(standin.systimestamp()),
  payload    text
);
CREATE INDEX message_order ON standin.message (exception, priority, enq_time, place);

-- Attempts stand beside the messages: they are written by another session while the one that dequeued still holds the
-- messages locked, so that nobody sees a message again without its attempt.
CREATE TABLE standin.attempt (
  place    bigint PRIMARY KEY,
  attempts integer NOT NULL,
  ready_at timestamp(6) NOT NULL
);
CREATE FUNCTION standin.attempted(bigint[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO standin.attempt (place, attempts, ready_at)
  SELECT place, 1, standin.sys_extract_utc(standin.systimestamp()) + retry_delay
  FROM pg_catalog.unnest($1) AS place, standin.setting
  ON CONFLICT (place) DO UPDATE
  SET attempts = attempt.attempts + 1, ready_at = excluded.ready_at $$;

-- Sessions of other people's PL/SQL that a test lets live; all others are dead.
CREATE TABLE standin.living_session (session_id varchar(64) PRIMARY KEY);

-- What every session says of itself.
CREATE TABLE standin.session_kind (server varchar(9), failover_type varchar(13));
INSERT INTO standin.session_kind VALUES ('DEDICATED', 'NONE');

-- The age of the oldest open transaction that has written something, whoever's it is. What a transaction has seen of the
-- others is kept for it, so that is forgotten first.
CREATE FUNCTION standin.open_writes() RETURNS numeric LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_catalog.pg_stat_clear_snapshot();
  RETURN (SELECT COALESCE(max(pg_catalog.ceil(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - xact_start))), 0)
          FROM pg_catalog.pg_stat_activity
          WHERE datname = pg_catalog.current_database() AND backend_xid IS NOT NULL);
END $$;

CREATE FUNCTION standin.told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NOTIFY standin_message;
  RETURN NULL;
END $$;
CREATE TRIGGER told AFTER INSERT ON standin.message FOR EACH STATEMENT EXECUTE FUNCTION standin.told();

-- What monitoring asks.
CREATE VIEW standin.aq$sentinel_queue_tab AS
  SELECT m.msgid AS msg_id, 'SENTINEL_QUEUE'::varchar AS queue, m.priority::numeric AS msg_priority,
         CASE WHEN m.exception OR COALESCE(a.attempts, 0) > s.max_retries THEN 'EXPIRED'
              WHEN a.ready_at > standin.sys_extract_utc(standin.systimestamp()) THEN 'WAIT' ELSE 'READY' END::varchar
           AS msg_state, m.enq_time AS enq_timestamp, COALESCE(a.attempts, 0)::numeric AS retry_count
  FROM standin.message m LEFT JOIN standin.attempt a ON a.place = m.place, standin.setting s;

-- Locks messages that may be delivered, by priority and then by time, and returns what they are. Two steps, so that
-- attempts are read after the lock is held.
CREATE FUNCTION standin.dequeued(p_max integer, p_exception boolean)
RETURNS TABLE (place bigint, msgid bytea, attempts numeric, enq_time timestamp(6), priority numeric, event_id varchar,
  event_type varchar, process_id varchar, tenant_id varchar, timestamp_utc timestamp(6), payload text)
LANGUAGE plpgsql AS $$
DECLARE
  l_places bigint[];
  l_settings standin.setting;
  l_now timestamp(6) := standin.sys_extract_utc(standin.systimestamp());
BEGIN
  SELECT * INTO l_settings FROM standin.setting;
  IF NOT l_settings.dequeue_enabled THEN
    RAISE EXCEPTION 'disabled' USING ERRCODE = 'S5226';
  END IF;
  SELECT pg_catalog.array_agg(chosen.place) INTO l_places FROM (
    SELECT m.place FROM standin.message m LEFT JOIN standin.attempt a ON a.place = m.place
    WHERE CASE WHEN p_exception THEN COALESCE(a.attempts, 0) > l_settings.max_retries
               ELSE COALESCE(a.attempts, 0) <= l_settings.max_retries AND COALESCE(a.ready_at, l_now) <= l_now END
    ORDER BY m.priority, m.enq_time, m.place
    LIMIT p_max FOR UPDATE OF m SKIP LOCKED) AS chosen;
  RETURN QUERY
    WITH gone AS (
      DELETE FROM standin.message m USING pg_catalog.unnest(l_places) AS wanted
      WHERE m.place = wanted AND (p_exception OR NOT EXISTS (
        SELECT 1 FROM standin.attempt a WHERE a.place = m.place
        AND (a.attempts > l_settings.max_retries OR a.ready_at > l_now)))
      RETURNING m.*)
    SELECT g.place, g.msgid, COALESCE(a.attempts, 0)::numeric, g.enq_time, g.priority::numeric, g.event_id,
      g.event_type, g.process_id, g.tenant_id, g.timestamp_utc, g.payload
    FROM gone g LEFT JOIN standin.attempt a ON a.place = g.place
    ORDER BY g.priority, g.enq_time, g.place;
END $$;
