-- Makes the tables and their indexes. Run as the owner (or as a DBA) after 001; a second run changes nothing.
--
-- Whether the big tables (events, process_logs) are partitioned by day is decided once, at the first install, and
-- kept in sentinel_setting as `partitioning` (ON or OFF); the service reads it there and /ready shows it. AUTO asks
-- the database whether the option is installed. That is not the same as licensed: on an Enterprise Edition without
-- the Partitioning licence say OFF.
--
-- House rules: times are UTC, TIMESTAMP(6); texts are counted in characters; JSON is a CLOB with a check, which 19c,
-- 21c and 23ai all read alike.
--
-- Substitution variables: see 001.
DEFINE sentinel_owner = SENTINEL
DEFINE sentinel_partitioning = AUTO

SET DEFINE ON SQLBLANKLINES ON VERIFY OFF FEEDBACK OFF SERVEROUTPUT ON
WHENEVER OSERROR EXIT FAILURE
WHENEVER SQLERROR EXIT FAILURE ROLLBACK

ALTER SESSION SET CURRENT_SCHEMA = &sentinel_owner.
/

-- What is installed. Each script inserts its own row where there is none, without a checksum. `sentinel migrate` adds
-- the checksum to the row it finds (or inserts the whole row), and refuses a file that has another one than its row.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE sentinel_schema_version (
  version    NUMBER(6) NOT NULL,
  name       VARCHAR2(100 CHAR) NOT NULL,
  applied_at TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  checksum   VARCHAR2(64 CHAR),
  CONSTRAINT sentinel_schema_version_pk PRIMARY KEY (version)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- Facts about this installation that scripts write and the service reads: partitioning, queue_name, exception_queue_name.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE sentinel_setting (
  name       VARCHAR2(100 CHAR) NOT NULL,
  value      VARCHAR2(4000 CHAR),
  updated_at TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  CONSTRAINT sentinel_setting_pk PRIMARY KEY (name)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- Decides about partitioning, unless that was done before.
DECLARE
  l_wanted    VARCHAR2(30) := UPPER('&sentinel_partitioning.');
  l_installed VARCHAR2(30);
  l_known     NUMBER;
BEGIN
  SELECT COUNT(*) INTO l_known FROM sentinel_setting WHERE name = 'partitioning';
  IF l_known > 0 THEN
    RETURN;
  END IF;
  IF l_wanted NOT IN ('AUTO', 'ON', 'OFF') THEN
    RAISE_APPLICATION_ERROR(-20003, 'sentinel_partitioning is ' || l_wanted || ': say AUTO, ON or OFF');
  END IF;
  IF l_wanted = 'AUTO' THEN
    BEGIN
      EXECUTE IMMEDIATE q'[SELECT value FROM sys.v_$option WHERE parameter = 'Partitioning']' INTO l_installed;
    EXCEPTION
      -- The view is not granted (see 000) or knows no such option: flat tables are always right.
      WHEN OTHERS THEN
        l_installed := 'FALSE';
    END;
    l_wanted := CASE l_installed WHEN 'TRUE' THEN 'ON' ELSE 'OFF' END;
  END IF;
  INSERT INTO sentinel_setting (name, value) VALUES ('partitioning', l_wanted);
  COMMIT;
END;
/

-- One row for each process. The package inserts it at start; afterwards only the service writes it.
-- process_uuid is the id as 16 bytes, where the id is a UUID: four dashes and 32 hexadecimal digits.
-- expires_at is set only while the process is waited for, so its index holds nothing else.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE process_registry (
  tenant_id         VARCHAR2(50 CHAR) NOT NULL,
  process_id        VARCHAR2(100 CHAR) NOT NULL,
  process_uuid      RAW(16) GENERATED ALWAYS AS (CAST(CASE
                      WHEN LENGTH(process_id) = 36
                       AND TRANSLATE(process_id, '-0123456789abcdefABCDEF', '-') = '----'
                      THEN HEXTORAW(REPLACE(process_id, '-', ''))
                    END AS RAW(16))) VIRTUAL,
  process_type      VARCHAR2(50 CHAR),
  process_name      VARCHAR2(200 CHAR),
  package_name      VARCHAR2(128 CHAR),
  procedure_name    VARCHAR2(128 CHAR),
  owner_service     VARCHAR2(100 CHAR) DEFAULT 'CLM_SERVICE' NOT NULL,
  status            VARCHAR2(20 CHAR) NOT NULL,
  registered_at     TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  last_heartbeat_at TIMESTAMP(6),
  expires_at        TIMESTAMP(6),
  config            CLOB,
  tags              CLOB,
  total_executions  NUMBER(19) DEFAULT 0 NOT NULL,
  successful_runs   NUMBER(19) DEFAULT 0 NOT NULL,
  failed_runs       NUMBER(19) DEFAULT 0 NOT NULL,
  avg_duration_ms   NUMBER(19),
  CONSTRAINT process_registry_pk PRIMARY KEY (tenant_id, process_id),
  CONSTRAINT process_registry_status CHECK (status IN
    ('REGISTERED', 'ACTIVE', 'RUNNING', 'PAUSED', 'COMPLETED', 'FAILED', 'EXPIRED', 'ARCHIVED')),
  CONSTRAINT process_registry_config CHECK (config IS JSON),
  CONSTRAINT process_registry_tags CHECK (tags IS JSON)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- One row for each process: what it does now. The package inserts it at start, with session_id and without a
-- state_digest; afterwards only the service writes it, and leaves session_id as it is.
-- state_digest is the merge state of the service (law 2: the winning keys of start, end, step and life are in it), as
-- base64 text. Nobody else reads or writes it; NULL means that no event has been merged yet.
-- deadline_at is set only while the process is waited for, so its index holds nothing else.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE process_live_status (
  tenant_id            VARCHAR2(50 CHAR) NOT NULL,
  process_id           VARCHAR2(100 CHAR) NOT NULL,
  run_id               VARCHAR2(100 CHAR),
  run_no               NUMBER(19),
  status               VARCHAR2(20 CHAR) NOT NULL,
  reason               VARCHAR2(4000 CHAR),
  started_at           TIMESTAMP(6),
  ended_at             TIMESTAMP(6),
  current_step         VARCHAR2(200 CHAR),
  progress_percent     NUMBER(5,2),
  last_update_at       TIMESTAMP(6),
  estimated_completion TIMESTAMP(6),
  last_life_at         TIMESTAMP(6),
  deadline_at          TIMESTAMP(6),
  correlation_id       VARCHAR2(100 CHAR),
  history_key          VARCHAR2(300 CHAR),
  session_id           VARCHAR2(64 CHAR),
  row_version          NUMBER(19) DEFAULT 0 NOT NULL,
  metadata             CLOB,
  state_digest         CLOB,
  CONSTRAINT process_live_status_pk PRIMARY KEY (tenant_id, process_id),
  CONSTRAINT process_live_status_status CHECK (status IN
    ('REGISTERED', 'ACTIVE', 'RUNNING', 'PAUSED', 'COMPLETED', 'FAILED', 'EXPIRED', 'ARCHIVED')),
  CONSTRAINT process_live_status_progress CHECK (progress_percent BETWEEN 0 AND 100),
  CONSTRAINT process_live_status_metadata CHECK (metadata IS JSON)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- The runs that are over or were opened by a start. A run without a name has the run_id ' ' (one blank, which no
-- event id can be, and which is not NULL). sort_at is its place among the others.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE process_runs (
  tenant_id     VARCHAR2(50 CHAR) NOT NULL,
  process_id    VARCHAR2(100 CHAR) NOT NULL,
  run_id        VARCHAR2(100 CHAR) NOT NULL,
  history_key   VARCHAR2(300 CHAR) NOT NULL,
  sort_at       TIMESTAMP(6) NOT NULL,
  started_at    TIMESTAMP(6),
  ended_at      TIMESTAMP(6),
  outcome       VARCHAR2(20 CHAR),
  duration_ms   NUMBER(19),
  error_code    VARCHAR2(100 CHAR),
  error_message VARCHAR2(4000 CHAR),
  CONSTRAINT process_runs_pk PRIMARY KEY (tenant_id, process_id, run_id),
  CONSTRAINT process_runs_outcome CHECK (outcome IN ('completed', 'failed', 'superseded'))
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- How long the newest successes of one kind of process took: package.procedure, else name, else process id.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE process_history (
  tenant_id   VARCHAR2(50 CHAR) NOT NULL,
  history_key VARCHAR2(300 CHAR) NOT NULL,
  samples     NUMBER(6) NOT NULL,
  median_ms   NUMBER(19),
  updated_at  TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  CONSTRAINT process_history_pk PRIMARY KEY (tenant_id, history_key)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- Lines that processes said. Partitioned by the receipt: a client's clock must not make partitions. The first
-- partition lies in the past and stays empty, because the last one of a range can't be dropped.
-- ORDER: on RAC each instance would count from a cache of its own, and a follower, who goes on behind the highest number
-- it has seen, would pass over the rows of the others. Without RAC it costs nothing.
-- details may be any JSON value; IS JSON of 19c takes objects and arrays only, so the check looks at those alone.
DECLARE
  l_partitions VARCHAR2(400);
BEGIN
  SELECT CASE value WHEN 'ON' THEN q'[
PARTITION BY RANGE (ingested_at) INTERVAL (NUMTODSINTERVAL(1, 'DAY'))
(PARTITION process_logs_p0 VALUES LESS THAN (TIMESTAMP '2020-01-01 00:00:00'))]' END
    INTO l_partitions FROM sentinel_setting WHERE name = 'partitioning';
  EXECUTE IMMEDIATE q'[
CREATE TABLE process_logs (
  log_id            NUMBER(19) GENERATED ALWAYS AS IDENTITY (CACHE 1000 ORDER) NOT NULL,
  tenant_id         VARCHAR2(50 CHAR) NOT NULL,
  process_id        VARCHAR2(100 CHAR) NOT NULL,
  log_level         VARCHAR2(5 CHAR) NOT NULL,
  event_type        VARCHAR2(50 CHAR),
  component         VARCHAR2(100 CHAR),
  logged_at         TIMESTAMP(6) NOT NULL,
  ingested_at       TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  event_duration_us NUMBER(19),
  correlation_id    VARCHAR2(100 CHAR),
  trace_id          VARCHAR2(32 CHAR),
  span_id           VARCHAR2(32 CHAR),
  message           VARCHAR2(4000 CHAR) NOT NULL,
  details           CLOB,
  stack_trace       CLOB,
  CONSTRAINT process_logs_level CHECK (log_level IN ('TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL')),
  CONSTRAINT process_logs_details CHECK (details IS JSON OR (details NOT LIKE '{%' AND details NOT LIKE '[%'))
)]' || l_partitions;
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- Every event that was applied, under the number it got at acceptance. Partitioned by the receipt.
-- timestamp_utc is what orders it within its stream: its own time, unless that is out of bounds (clock_skew = 1).
-- payload may be any JSON value (see process_logs).
DECLARE
  l_partitions VARCHAR2(400);
BEGIN
  SELECT CASE value WHEN 'ON' THEN q'[
PARTITION BY RANGE (received_utc) INTERVAL (NUMTODSINTERVAL(1, 'DAY'))
(PARTITION events_p0 VALUES LESS THAN (TIMESTAMP '2020-01-01 00:00:00'))]' END
    INTO l_partitions FROM sentinel_setting WHERE name = 'partitioning';
  EXECUTE IMMEDIATE q'[
CREATE TABLE events (
  id              NUMBER(19) GENERATED ALWAYS AS IDENTITY (CACHE 1000 ORDER) NOT NULL,
  tenant_id       VARCHAR2(50 CHAR) NOT NULL,
  source          VARCHAR2(200 CHAR) NOT NULL,
  type            VARCHAR2(200 CHAR) NOT NULL,
  stream_key      VARCHAR2(200 CHAR) NOT NULL,
  stream_seq      NUMBER(19) NOT NULL,
  event_id        VARCHAR2(100 CHAR) NOT NULL,
  id_origin       VARCHAR2(6 CHAR) DEFAULT 'caller' NOT NULL,
  timestamp_utc   TIMESTAMP(6) NOT NULL,
  occurred_utc    TIMESTAMP(6),
  clock_skew      NUMBER(1) DEFAULT 0 NOT NULL,
  received_utc    TIMESTAMP(6) NOT NULL,
  processed_utc   TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  schema_version  NUMBER(10) NOT NULL,
  idempotency_key VARCHAR2(255 CHAR),
  payload_hash    VARCHAR2(64 CHAR),
  trace_id        VARCHAR2(32 CHAR),
  parent_span_id  VARCHAR2(16 CHAR),
  trace_sampled   NUMBER(1) DEFAULT 0 NOT NULL,
  payload         CLOB NOT NULL,
  CONSTRAINT events_id_origin CHECK (id_origin IN ('caller', 'door')),
  CONSTRAINT events_payload CHECK (payload IS JSON OR (payload NOT LIKE '{%' AND payload NOT LIKE '[%'))
)]' || l_partitions;
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- Keys of the idempotency window: which request had which answer.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE idempotency (
  tenant_id       VARCHAR2(50 CHAR) NOT NULL,
  idempotency_key VARCHAR2(255 CHAR) NOT NULL,
  payload_hash    VARCHAR2(64 CHAR) NOT NULL,
  event_id        VARCHAR2(100 CHAR) NOT NULL,
  stream_key      VARCHAR2(200 CHAR) NOT NULL,
  stream_seq      NUMBER(19) NOT NULL,
  first_seen_utc  TIMESTAMP(6) NOT NULL,
  CONSTRAINT idempotency_pk PRIMARY KEY (tenant_id, idempotency_key)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- Event ids of the same window: an event is unique per (tenant, source, event id).
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE event_identity (
  tenant_id      VARCHAR2(50 CHAR) NOT NULL,
  source         VARCHAR2(200 CHAR) NOT NULL,
  event_id       VARCHAR2(100 CHAR) NOT NULL,
  payload_hash   VARCHAR2(64 CHAR) NOT NULL,
  stream_key     VARCHAR2(200 CHAR) NOT NULL,
  stream_seq     NUMBER(19) NOT NULL,
  first_seen_utc TIMESTAMP(6) NOT NULL,
  CONSTRAINT event_identity_pk PRIMARY KEY (tenant_id, source, event_id)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- The last number given in each stream. Only those who accept events touch it: intake, and the package's own
-- autonomous transactions (law 5).
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE stream_counter (
  tenant_id  VARCHAR2(50 CHAR) NOT NULL,
  stream_key VARCHAR2(200 CHAR) NOT NULL,
  last_seq   NUMBER(19) NOT NULL,
  CONSTRAINT stream_counter_pk PRIMARY KEY (tenant_id, stream_key)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- What was last applied of each stream. Only listeners touch it.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE stream_state (
  tenant_id     VARCHAR2(50 CHAR) NOT NULL,
  stream_key    VARCHAR2(200 CHAR) NOT NULL,
  applied_seq   NUMBER(19) NOT NULL,
  last_seen_utc TIMESTAMP(6) NOT NULL,
  last_type     VARCHAR2(200 CHAR) NOT NULL,
  last_payload  CLOB,
  CONSTRAINT stream_state_pk PRIMARY KEY (tenant_id, stream_key)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- Events that could not be applied, whole, with the reason. A message that names nobody has the tenant #none.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE dead_letter (
  id             NUMBER(19) GENERATED ALWAYS AS IDENTITY (CACHE 100) NOT NULL,
  tenant_id      VARCHAR2(50 CHAR) NOT NULL,
  reason         VARCHAR2(50 CHAR) NOT NULL,
  detail         VARCHAR2(4000 CHAR),
  source         VARCHAR2(200 CHAR),
  event_id       VARCHAR2(100 CHAR),
  stream_key     VARCHAR2(200 CHAR),
  stream_seq     NUMBER(19),
  msgid          VARCHAR2(32 CHAR),
  created_utc    TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  replayed_utc   TIMESTAMP(6),
  discarded_utc  TIMESTAMP(6),
  replay_of      NUMBER(19),
  event_snapshot CLOB NOT NULL,
  CONSTRAINT dead_letter_pk PRIMARY KEY (id),
  CONSTRAINT dead_letter_snapshot CHECK (event_snapshot IS JSON)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- What is to be published after a commit. next_attempt_utc is NULL once it is, so its index holds what is left.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE outbox (
  id               NUMBER(19) GENERATED ALWAYS AS IDENTITY (CACHE 1000) NOT NULL,
  tenant_id        VARCHAR2(50 CHAR) NOT NULL,
  type             VARCHAR2(200 CHAR) NOT NULL,
  created_utc      TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  published_utc    TIMESTAMP(6),
  attempt_count    NUMBER(6) DEFAULT 0 NOT NULL,
  next_attempt_utc TIMESTAMP(6),
  last_error       VARCHAR2(4000 CHAR),
  payload          CLOB NOT NULL,
  CONSTRAINT outbox_pk PRIMARY KEY (id),
  CONSTRAINT outbox_payload CHECK (payload IS JSON OR (payload NOT LIKE '{%' AND payload NOT LIKE '[%'))
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE slo_samples (
  window_start_utc TIMESTAMP(6) NOT NULL,
  instance         VARCHAR2(100 CHAR) NOT NULL,
  window_end_utc   TIMESTAMP(6) NOT NULL,
  ingestion_good   NUMBER(19) NOT NULL,
  ingestion_total  NUMBER(19) NOT NULL,
  freshness_good   NUMBER(19) NOT NULL,
  freshness_total  NUMBER(19) NOT NULL,
  CONSTRAINT slo_samples_pk PRIMARY KEY (window_start_utc, instance)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- Work that the service hands to workers. A job is also a process: its events and its log go by process_id.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE jobs (
  job_id                NUMBER(19) GENERATED ALWAYS AS IDENTITY (CACHE 20) NOT NULL,
  tenant_id             VARCHAR2(50 CHAR) NOT NULL,
  process_id            VARCHAR2(100 CHAR) NOT NULL,
  job_type              VARCHAR2(20 CHAR) NOT NULL,
  status                VARCHAR2(20 CHAR) DEFAULT 'queued' NOT NULL,
  plugin_name           VARCHAR2(200 CHAR) NOT NULL,
  plugin_version        VARCHAR2(100 CHAR),
  input_dir             VARCHAR2(1000 CHAR),
  output_sink           VARCHAR2(200 CHAR),
  approval_id           VARCHAR2(100 CHAR),
  priority              NUMBER(6) DEFAULT 0 NOT NULL,
  attempts              NUMBER(6) DEFAULT 0 NOT NULL,
  max_attempts          NUMBER(6) DEFAULT 1 NOT NULL,
  claim_token           VARCHAR2(100 CHAR),
  worker_id             VARCHAR2(200 CHAR),
  lease_until           TIMESTAMP(6),
  created_at            TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  started_at            TIMESTAMP(6),
  finished_at           TIMESTAMP(6),
  error_message         VARCHAR2(4000 CHAR),
  progress_phase        VARCHAR2(200 CHAR),
  progress_items_done   NUMBER(19),
  progress_items_total  NUMBER(19),
  progress_message      VARCHAR2(4000 CHAR),
  result_rows_processed NUMBER(19),
  result_bytes_written  NUMBER(19),
  result_outputs        CLOB,
  result_metrics        CLOB,
  CONSTRAINT jobs_pk PRIMARY KEY (job_id),
  CONSTRAINT jobs_type CHECK (job_type IN ('run', 'backtest', 'preview')),
  CONSTRAINT jobs_status CHECK (status IN ('queued', 'running', 'completed', 'failed', 'cancelled')),
  CONSTRAINT jobs_outputs CHECK (result_outputs IS JSON),
  CONSTRAINT jobs_metrics CHECK (result_metrics IS JSON)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE approvals (
  approval_id      VARCHAR2(100 CHAR) NOT NULL,
  tenant_id        VARCHAR2(50 CHAR) NOT NULL,
  status           VARCHAR2(20 CHAR) DEFAULT 'pending' NOT NULL,
  operation_type   VARCHAR2(100 CHAR) NOT NULL,
  operation        CLOB NOT NULL,
  operation_hash   VARCHAR2(64 CHAR) NOT NULL,
  summary          VARCHAR2(4000 CHAR),
  created_at       TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  created_by       VARCHAR2(200 CHAR),
  expires_at       TIMESTAMP(6) NOT NULL,
  decided_at       TIMESTAMP(6),
  decided_by       VARCHAR2(200 CHAR),
  rejection_reason VARCHAR2(4000 CHAR),
  job_id           NUMBER(19),
  CONSTRAINT approvals_pk PRIMARY KEY (tenant_id, approval_id),
  CONSTRAINT approvals_status CHECK (status IN ('pending', 'approved', 'rejected', 'expired')),
  CONSTRAINT approvals_operation CHECK (operation IS JSON)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE plugins (
  name        VARCHAR2(200 CHAR) NOT NULL,
  version     VARCHAR2(100 CHAR) NOT NULL,
  env_hash    VARCHAR2(64 CHAR),
  source      VARCHAR2(1000 CHAR),
  deployed_at TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  status      VARCHAR2(20 CHAR) NOT NULL,
  manifest    CLOB,
  CONSTRAINT plugins_pk PRIMARY KEY (name, version),
  CONSTRAINT plugins_manifest CHECK (manifest IS JSON)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE sinks (
  topic   VARCHAR2(200 CHAR) NOT NULL,
  kind    VARCHAR2(50 CHAR) NOT NULL,
  uri     VARCHAR2(1000 CHAR) NOT NULL,
  options CLOB,
  CONSTRAINT sinks_pk PRIMARY KEY (topic),
  CONSTRAINT sinks_options CHECK (options IS JSON)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- Errors that the package swallowed rather than raise them into business code: one row for each call and error code,
-- so it stays small. Doctor shows it.
BEGIN
  EXECUTE IMMEDIATE q'[
CREATE TABLE sdk_errors (
  call_name     VARCHAR2(30 CHAR) NOT NULL,
  error_code    NUMBER(10) NOT NULL,
  error_count   NUMBER(19) NOT NULL,
  first_seen_at TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  last_seen_at  TIMESTAMP(6) DEFAULT SYS_EXTRACT_UTC(SYSTIMESTAMP) NOT NULL,
  last_message  VARCHAR2(1000 CHAR),
  CONSTRAINT sdk_errors_pk PRIMARY KEY (call_name, error_code)
)]';
EXCEPTION
  WHEN OTHERS THEN
    IF SQLCODE != -955 THEN RAISE; END IF;
END;
/

-- Indexes. -955: the name is taken; -1408: the columns are indexed already. Those that say {local} become local
-- ones where the table is partitioned; the unique one of the streams cannot, since it lacks the partition key, so
-- retention drops partitions with UPDATE INDEXES.
DECLARE
  l_local VARCHAR2(10);

  PROCEDURE make_index(p_text IN VARCHAR2) IS
  BEGIN
    EXECUTE IMMEDIATE REPLACE(p_text, '{local}', l_local);
  EXCEPTION
    WHEN OTHERS THEN
      IF SQLCODE NOT IN (-955, -1408) THEN RAISE; END IF;
  END make_index;
BEGIN
  SELECT CASE value WHEN 'ON' THEN 'LOCAL' END
    INTO l_local FROM sentinel_setting WHERE name = 'partitioning';

  -- The package looks a process up by its id alone.
  make_index(q'[CREATE INDEX process_registry_id ON process_registry (process_id)]');
  make_index(q'[CREATE INDEX process_registry_status ON process_registry (tenant_id, status)]');
  make_index(q'[CREATE INDEX process_registry_package ON process_registry (package_name, procedure_name)]');
  make_index(q'[CREATE INDEX process_registry_expires ON process_registry (expires_at)]');

  make_index(q'[CREATE INDEX process_live_status_status ON process_live_status (tenant_id, status, process_id)]');
  make_index(q'[CREATE INDEX process_live_status_deadline ON process_live_status (deadline_at)]');
  -- The sessions of processes that are waited for: what dead_sessions walks.
  make_index(q'[CREATE INDEX process_live_status_session ON process_live_status
                (CASE WHEN status IN ('ACTIVE', 'RUNNING') THEN session_id END)]');
  -- What retention looks for: everything that is over, the longest over first.
  make_index(q'[CREATE INDEX process_live_status_over ON process_live_status
                (CASE WHEN status IN ('COMPLETED', 'FAILED', 'EXPIRED') THEN last_update_at END)]');

  make_index(q'[CREATE INDEX process_runs_newest ON process_runs (tenant_id, process_id, sort_at)]');
  make_index(q'[CREATE INDEX process_runs_history ON process_runs
                (tenant_id, history_key, CASE outcome WHEN 'completed' THEN ended_at END)]');
  make_index(q'[CREATE INDEX process_runs_ended ON process_runs (ended_at)]');

  make_index(q'[CREATE INDEX process_logs_process ON process_logs (tenant_id, process_id, logged_at, log_id) {local}]');
  make_index(q'[CREATE INDEX process_logs_level ON process_logs (tenant_id, log_level, logged_at) {local}]');
  make_index(q'[CREATE INDEX process_logs_correlation ON process_logs (correlation_id) {local}]');
  -- What every instance's tail follows, four times a second, and where the newest line is looked for.
  make_index(q'[CREATE INDEX process_logs_received ON process_logs (ingested_at, tenant_id, process_id, log_id) {local}]');

  make_index(q'[CREATE UNIQUE INDEX events_stream ON events (tenant_id, stream_key, stream_seq)]');
  make_index(q'[CREATE INDEX events_event_id ON events (tenant_id, event_id) {local}]');
  make_index(q'[CREATE INDEX events_time ON events (tenant_id, timestamp_utc, id) {local}]');
  make_index(q'[CREATE INDEX events_source ON events (tenant_id, source, timestamp_utc, id) {local}]');
  make_index(q'[CREATE INDEX events_type ON events (tenant_id, type, timestamp_utc, id) {local}]');
  -- What every instance's tail follows.
  make_index(q'[CREATE INDEX events_processed ON events (processed_utc, id) {local}]');

  make_index(q'[CREATE INDEX idempotency_first_seen ON idempotency (first_seen_utc)]');
  make_index(q'[CREATE INDEX event_identity_first_seen ON event_identity (first_seen_utc)]');
  make_index(q'[CREATE INDEX dead_letter_tenant ON dead_letter (tenant_id, id)]');
  make_index(q'[CREATE INDEX dead_letter_stream ON dead_letter (tenant_id, stream_key, stream_seq)]');
  make_index(q'[CREATE INDEX dead_letter_created ON dead_letter (created_utc)]');
  make_index(q'[CREATE INDEX outbox_next_attempt ON outbox (next_attempt_utc)]');
  make_index(q'[CREATE INDEX jobs_claim ON jobs (status, priority DESC, job_id)]');
  make_index(q'[CREATE INDEX jobs_tenant ON jobs (tenant_id, status, job_id)]');
  make_index(q'[CREATE INDEX jobs_process ON jobs (tenant_id, process_id)]');
  make_index(q'[CREATE INDEX approvals_status ON approvals (tenant_id, status, expires_at)]');
END;
/

-- A constraint and an index share no name space, but a name taken by another kind of object is swallowed above: say
-- so now rather than at the first event.
DECLARE
  l_tables NUMBER;
BEGIN
  SELECT COUNT(*) INTO l_tables FROM all_tables
   WHERE owner = SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA')
     AND table_name IN ('SENTINEL_SCHEMA_VERSION', 'SENTINEL_SETTING', 'PROCESS_REGISTRY', 'PROCESS_LIVE_STATUS',
                        'PROCESS_RUNS', 'PROCESS_HISTORY', 'PROCESS_LOGS', 'EVENTS', 'IDEMPOTENCY', 'EVENT_IDENTITY',
                        'STREAM_COUNTER', 'STREAM_STATE', 'DEAD_LETTER', 'OUTBOX', 'SLO_SAMPLES', 'JOBS', 'APPROVALS',
                        'PLUGINS', 'SINKS', 'SDK_ERRORS');
  IF l_tables != 20 THEN
    RAISE_APPLICATION_ERROR(-20004, 'Only ' || l_tables || ' of 20 tables are there: another object has one of their names');
  END IF;
END;
/

-- What is installed. Without a checksum: that is what `sentinel migrate` adds.
MERGE INTO sentinel_schema_version d
USING (
  SELECT 1 AS version, 'sentinel_types' AS name FROM dual
  UNION ALL
  SELECT 2 AS version, 'sentinel_tables' AS name FROM dual
) s ON (d.version = s.version)
WHEN NOT MATCHED THEN INSERT (version, name) VALUES (s.version, s.name)
/

COMMIT
/
