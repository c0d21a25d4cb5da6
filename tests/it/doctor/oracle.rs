//! The doctor of an Oracle database, on the stand-in. This module breaks one thing at a time in a schema that is well,
//! and puts it right again: each breakage is found where it is, with the statement that mends it, and nowhere else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use super::provider::Provider;
use super::{Report, doctor};
use crate::oracle_standin::{self, Standin};

/// A schema that is up to date, and what the doctor needs beside it.
struct Ward {
    standin: Standin,
    provider: Provider,
}

impl Ward {
    /// None where there is no stand-in, which has been said.
    fn open() -> Option<Self> {
        let standin = oracle_standin::start()?;
        let ward = Self { standin, provider: Provider::start(1) };
        let migrated = Command::new(env!("CARGO_BIN_EXE_sentinel"))
            .args(["--database", &ward.database(), "migrate"])
            .env_clear()
            .envs(ward.variables())
            .output()
            .unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        Some(ward)
    }

    fn database(&self) -> String {
        format!("oracle://{}", self.standin.connect_string)
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        vec![
            ("OAUTH2_ISSUER_URI", &self.provider.issuer),
            ("SENTINEL_LISTEN_ADDRESS", "127.0.0.1"),
            ("ORACLE_CLIENT_LIB_DIR", self.standin.library.to_str().unwrap()),
            ("ORACLE_USERNAME", "sentinel_svc"),
            ("ORACLE_PASSWORD", "any"),
        ]
    }

    fn doctor(&self) -> Report {
        let report = doctor(&self.database(), &self.variables());
        report.is_complete();
        report
    }

    /// Everything is as it should be, and everything was judged.
    fn is_well(&self) {
        let report = self.doctor();
        assert_eq!(report.code, Some(0), "{:#?}", report.findings);
        // No service runs here; that cannot be known of the ports that it would have.
        let unknown: Vec<&str> =
            report.all("unknown").into_iter().filter(|check| !check.ends_with(" port")).collect();
        assert!(unknown.is_empty(), "{unknown:?}: {:#?}", report.findings);
    }

    /// After `sql` the doctor finds `verdict` in `check` and nothing wrong elsewhere.
    fn breaks(&self, sql: &str, check: &str, verdict: &str, mend: &str) {
        self.standin.sql(sql);
        let report = self.doctor();
        assert_eq!(report.verdict(check), verdict, "{sql}: {:#?}", report.findings);
        assert!(report.mend(check).contains(mend), "{sql}: {:#?}", report.of(check));
        let wrong: Vec<&str> = report.all("warn").into_iter().chain(report.all("fail")).collect();
        let expected = if verdict == "unknown" { vec![] } else { vec![check] };
        assert_eq!(wrong, expected, "{sql}: {:#?}", report.findings);
        let code = match verdict {
            "fail" => 69,
            "warn" => 1,
            _ => 0,
        };
        assert_eq!(report.code, Some(code), "{sql}");
    }
}

#[test]
fn the_session_and_its_account_are_judged() {
    let Some(ward) = Ward::open() else { return };
    ward.is_well();
    let report = ward.doctor();
    assert!(
        report.found("session").starts_with("SENTINEL_SVC at service "),
        "{}",
        report.found("session")
    );
    let set = "UPDATE standin.setting SET";
    for (broken, check, verdict, mend, mended) in [
        (
            "network_protocol = 'tcp'",
            "network",
            "warn",
            "PROTOCOL = TCPS",
            "network_protocol = 'tcps'",
        ),
        ("session_zone = '+02:00'", "time zone", "fail", "LOGON", "session_zone = '+00:00'"),
        (
            "server_process = 'POOLED'",
            "server process",
            "fail",
            "DEDICATED",
            "server_process = 'DEDICATED'",
        ),
        ("failover = 'SELECT'", "server process", "fail", "no FAILOVER_MODE", "failover = 'NONE'"),
    ] {
        ward.breaks(&format!("{set} {broken}"), check, verdict, mend);
        ward.standin.sql(&format!("{set} {mended}"));
    }
    let expires = |when: &str| format!("UPDATE standin.user_users SET expiry_date = {when}");
    let (soon, past) = ("now() + interval '5 days'", "now() - interval '1 day'");
    ward.breaks(&expires(soon), "password", "warn", "ALTER USER SENTINEL_SVC IDENTIFIED BY");
    ward.breaks(&expires(past), "password", "fail", "ALTER USER SENTINEL_SVC IDENTIFIED BY");
    ward.standin.sql(&expires("NULL"));
    let state = |word: &str| format!("UPDATE standin.user_users SET account_status = '{word}'");
    ward.breaks(&state("EXPIRED(GRACE)"), "password", "fail", "ALTER USER SENTINEL_SVC");
    ward.standin.sql(&state("OPEN"));
    let set = |name: &str| {
        format!(
            "CREATE OR REPLACE VIEW standin.nls_database_parameters (parameter, value) AS VALUES ('NLS_CHARACTERSET'::varchar, '{name}'::varchar)"
        )
    };
    ward.breaks(&set("WE8MSWIN1252"), "character set", "fail", "AL32UTF8");
    ward.standin.sql(&set("AL32UTF8"));
    ward.is_well();
    ward.standin.forward(Duration::from_secs(90));
    ward.breaks("SELECT 1", "clock", "fail", "timedatectl");
    assert!(ward.doctor().found("clock").contains("ms ahead of ours"));
    ward.breaks(
        "UPDATE standin.setting SET clock_offset = interval '-10 seconds'",
        "clock",
        "warn",
        "timedatectl",
    );
    assert!(ward.doctor().found("clock").contains("ms behind ours"));
}

#[test]
fn too_little_and_too_much_is_told_with_its_grant_or_revoke() {
    let Some(ward) = Ward::open() else { return };
    ward.is_well();
    for (table, right) in
        [("EVENTS", "INSERT"), ("SENTINEL_SVC", "EXECUTE"), ("SENTINEL_SCHEMA_VERSION", "SELECT")]
    {
        let mend = format!("GRANT {right} ON SENTINEL.{table} TO SENTINEL_SVC;");
        ward.breaks(
            &format!("INSERT INTO standin.taken VALUES ('{table}', '{right}')"),
            "grants",
            "fail",
            &mend,
        );
        ward.standin.sql("DELETE FROM standin.taken");
    }
    let dba = "INSERT INTO standin.user_role_privs VALUES ('SENTINEL_SVC', 'DBA')";
    ward.breaks(dba, "too much granted", "warn", "REVOKE DBA FROM SENTINEL_SVC;");
    ward.standin.sql("DELETE FROM standin.user_role_privs");
    let space =
        "INSERT INTO standin.user_sys_privs VALUES ('SENTINEL_SVC', 'UNLIMITED TABLESPACE')";
    ward.breaks(
        space,
        "too much granted",
        "warn",
        "REVOKE UNLIMITED TABLESPACE FROM SENTINEL_SVC;",
    );
    ward.standin.sql("DELETE FROM standin.user_sys_privs WHERE privilege <> 'CREATE SESSION'");
    for (who, object, right, check, mend) in [
        (
            "SENTINEL_SVC",
            "EVENTS",
            "ALTER",
            "too much granted",
            "REVOKE ALTER ON SENTINEL.EVENTS FROM SENTINEL_SVC;",
        ),
        (
            "CLM_APP",
            "SENTINEL_QUEUE",
            "DEQUEUE",
            "grants of others",
            "REVOKE_QUEUE_PRIVILEGE('DEQUEUE', 'SENTINEL.SENTINEL_QUEUE', 'CLM_APP')",
        ),
        (
            "PUBLIC",
            "EVENTS",
            "SELECT",
            "grants of others",
            "REVOKE SELECT ON SENTINEL.EVENTS FROM PUBLIC;",
        ),
    ] {
        let add = format!("INSERT INTO standin.added VALUES ('{who}', '{object}', '{right}')");
        ward.breaks(&add, check, "warn", mend);
        ward.standin.sql("DELETE FROM standin.added");
    }
    ward.is_well();
}

#[test]
fn what_the_services_user_may_not_see_is_not_judged_and_has_its_grant() {
    let Some(ward) = Ward::open() else { return };
    ward.is_well();
    for (kind, view, check, grant) in [
        ("VIEW", "v$session", "server process", "GRANT SELECT ON sys.v_$session TO SENTINEL_SVC;"),
        (
            "VIEW",
            "dba_tab_privs",
            "grants of others",
            "GRANT SELECT ON sys.dba_tab_privs TO SENTINEL_SVC;",
        ),
        ("VIEW", "dba_objects", "objects", "GRANT SELECT ON sys.dba_objects TO SENTINEL_SVC;"),
        ("VIEW", "dba_queues", "queue retries", "GRANT SELECT ON sys.dba_queues TO SENTINEL_SVC;"),
        (
            "TABLE",
            "dba_segments",
            "queue room",
            "GRANT SELECT ON sys.dba_segments TO SENTINEL_SVC;",
        ),
        ("TABLE", "dba_ts_quotas", "quota", "GRANT SELECT ON sys.dba_ts_quotas TO SENTINEL_SVC;"),
        (
            "TABLE",
            "dba_tablespace_usage_metrics",
            "tablespace",
            "GRANT SELECT ON sys.dba_tablespace_usage_metrics TO SENTINEL_SVC;",
        ),
    ] {
        ward.breaks(
            &format!("ALTER {kind} standin.{view} RENAME TO hidden"),
            check,
            "unknown",
            grant,
        );
        ward.standin.sql(&format!("ALTER {kind} standin.hidden RENAME TO {view}"));
    }
    // A body that does not compile is not seen without that right, and its header is.
    ward.standin.sql("ALTER VIEW standin.dba_objects RENAME TO hidden");
    let invalid = |what: &str| {
        format!(
            "UPDATE standin.package SET status = 'INVALID' WHERE object_type = '{what}' AND object_name = 'SENTINEL_PKG'"
        )
    };
    ward.breaks(&invalid("PACKAGE BODY"), "objects", "unknown", "GRANT SELECT ON sys.dba_objects");
    ward.breaks(
        &invalid("PACKAGE"),
        "objects",
        "fail",
        "ALTER PACKAGE SENTINEL.SENTINEL_PKG COMPILE;",
    );
}

#[test]
fn a_schema_that_is_behind_drifted_or_broken_is_told() {
    let Some(ward) = Ward::open() else { return };
    ward.is_well();
    let versions = "UPDATE sentinel.sentinel_schema_version SET checksum";
    let kept =
        ward.standin.sql("SELECT checksum FROM sentinel.sentinel_schema_version WHERE version = 3");
    ward.breaks(
        &format!("{versions} = repeat('0', 64) WHERE version = 3"),
        "schema",
        "fail",
        "sentinel migrate --check",
    );
    ward.breaks(
        &format!("{versions} = NULL WHERE version = 3"),
        "schema",
        "unknown",
        "sentinel migrate",
    );
    ward.standin.sql(&format!("{versions} = '{kept}' WHERE version = 3"));
    let row = "INSERT INTO sentinel.sentinel_schema_version (version, name) VALUES (99, 'future')";
    ward.breaks(row, "schema", "fail", "sentinel migrate --check");
    ward.standin.sql("DELETE FROM sentinel.sentinel_schema_version WHERE version = 99");
    let status = |status: &str| {
        format!(
            "UPDATE standin.package SET status = '{status}' WHERE object_type = 'PACKAGE BODY' AND object_name = 'SENTINEL_SVC'"
        )
    };
    let compile = "ALTER PACKAGE SENTINEL.SENTINEL_SVC COMPILE BODY;";
    ward.breaks(&status("INVALID"), "objects", "fail", compile);
    ward.standin.sql(&status("VALID"));
    let index = "INSERT INTO standin.unusable_index VALUES ('DEAD_LETTER_PK')";
    let rebuild = "ALTER INDEX SENTINEL.DEAD_LETTER_PK REBUILD;";
    let known = "SELECT count(*) FROM standin.all_indexes WHERE index_name = 'DEAD_LETTER_PK'";
    assert_eq!(ward.standin.sql(known), "1", "there is such an index");
    ward.breaks(index, "indexes", "fail", rebuild);
    ward.standin.sql("DELETE FROM standin.unusable_index");
    let part = "INSERT INTO standin.all_ind_partitions VALUES ('SENTINEL', 'EVENTS_TIME', 'SYS_P1', 'UNUSABLE')";
    ward.breaks(
        part,
        "indexes",
        "fail",
        "ALTER INDEX SENTINEL.EVENTS_TIME REBUILD PARTITION SYS_P1;",
    );
    ward.standin.sql("DELETE FROM standin.all_ind_partitions");
    ward.is_well();
}

#[test]
fn the_queue_is_judged_by_its_doors_its_backlog_and_its_room() {
    let Some(ward) = Ward::open() else { return };
    ward.is_well();
    let start =
        "START_QUEUE(queue_name => 'SENTINEL.SENTINEL_QUEUE', enqueue => TRUE, dequeue => TRUE)";
    for (enqueue, dequeue) in [(false, true), (true, false)] {
        ward.standin.queue(enqueue, dequeue);
        ward.breaks("SELECT 1", "queue", "fail", start);
    }
    ward.standin.queue(true, true);
    let message = |seconds: u32, exception: bool| {
        format!(
            "INSERT INTO standin.message (priority, exception, event_id, enq_time) VALUES (5, {exception}, 'e', \
             standin.sys_extract_utc(standin.systimestamp()) - interval '{seconds} seconds')"
        )
    };
    ward.breaks(&message(300, false), "backlog", "warn", "sentinel health --ready");
    ward.breaks(&message(3600, false), "backlog", "fail", "sentinel health --ready");
    assert!(ward.doctor().found("backlog").starts_with("2 ready"));
    ward.standin.sql("DELETE FROM standin.message");
    ward.breaks(&message(1, true), "exception queue", "warn", "sentinel health --ready");
    ward.standin.sql("DELETE FROM standin.message");
    let retries = |count: u32| format!("UPDATE standin.setting SET max_retries = {count}");
    ward.breaks(
        &retries(0),
        "queue retries",
        "warn",
        "ALTER_QUEUE(queue_name => 'SENTINEL.SENTINEL_QUEUE', max_retries => 3",
    );
    ward.standin.sql(&retries(3));
    let grow = |mib: u32, name: &str| {
        format!(
            "UPDATE standin.dba_segments SET bytes = {mib} * 1048576.0 WHERE segment_name = '{name}'"
        )
    };
    let index = "AQ$_SENTINEL_QUEUE_TAB_I";
    let coalesce = "ALTER INDEX SENTINEL.AQ$_SENTINEL_QUEUE_TAB_I COALESCE;";
    ward.breaks(&grow(900, index), "queue room", "warn", coalesce);
    ward.standin.sql(&grow(1, index));
    ward.is_well();
    let fault = ward.standin.inject("on=OCIStmtExecute text=sentinel_svc.queue_state do=ora:4063");
    ward.breaks("SELECT 1", "queue", "fail", "ALTER PACKAGE SENTINEL.SENTINEL_SVC COMPILE BODY;");
    ward.standin.mend(&fault);
}

#[test]
fn room_is_judged_before_it_runs_out() {
    let Some(ward) = Ward::open() else { return };
    ward.is_well();
    assert!(ward.doctor().found("partitions").starts_with("none: retention deletes rows"));
    ward.standin
        .sql("UPDATE sentinel.sentinel_setting SET value = 'ON' WHERE name = 'partitioning'");
    ward.breaks(
        "SELECT 1",
        "partitions",
        "warn",
        "UPDATE SENTINEL.sentinel_setting SET value = 'OFF'",
    );
    ward.standin.sql(
        "INSERT INTO standin.all_part_tables SELECT 'SENTINEL', name, 'NUMTODSINTERVAL(1, ''DAY'')' \
         FROM (VALUES ('EVENTS'), ('PROCESS_LOGS')) AS t (name)",
    );
    ward.is_well();
    let end = |days: i32| {
        format!(
            "DELETE FROM standin.user_tab_partitions; UPDATE standin.all_part_tables SET interval = NULL WHERE table_name = 'EVENTS'; \
             INSERT INTO standin.user_tab_partitions (table_name, partition_name, high_value, partition_position) VALUES \
             ('EVENTS', 'P0', 'TIMESTAMP'' 2020-01-01 00:00:00''', 1), \
             ('EVENTS', 'P1', 'TIMESTAMP'' ' || to_char(now() + interval '{days} days', 'YYYY-MM-DD') || ' 00:00:00''', 2)"
        )
    };
    let interval = "ALTER TABLE SENTINEL.EVENTS SET INTERVAL (NUMTODSINTERVAL(1, 'DAY'));";
    ward.standin.sql(&end(30));
    ward.is_well();
    ward.breaks(&end(3), "partitions", "warn", interval);
    ward.breaks(&end(-3), "partitions", "fail", interval);
    assert!(ward.doctor().found("partitions").contains("EVENTS: the last one has ended"));
    ward.standin.sql("UPDATE standin.all_part_tables SET interval = 'x'");
    let full = |percent: u32| {
        format!(
            "UPDATE standin.dba_tablespace_usage_metrics SET used_percent = {percent} WHERE tablespace_name = 'USERS'"
        )
    };
    ward.breaks(&full(90), "tablespace", "warn", "ALTER TABLESPACE USERS ADD DATAFILE");
    ward.breaks(&full(99), "tablespace", "fail", "ALTER TABLESPACE USERS ADD DATAFILE");
    ward.standin.sql(&full(10));
    let quota = |most: i32| format!("UPDATE standin.dba_ts_quotas SET max_bytes = {most}");
    ward.breaks(
        &quota(1_048_576),
        "quota",
        "fail",
        "ALTER USER SENTINEL QUOTA UNLIMITED ON USERS;",
    );
    ward.standin.sql(&quota(-1));
    ward.is_well();
}

#[test]
fn work_that_does_not_get_on_is_told() {
    let Some(ward) = Ward::open() else { return };
    ward.is_well();
    let letter = "INSERT INTO sentinel.dead_letter (tenant_id, reason, event_snapshot) VALUES ('t', 'r', '{}')";
    ward.breaks(letter, "dead letters", "warn", "/v1/dead-letters");
    ward.standin.sql("UPDATE sentinel.dead_letter SET replayed_utc = now()");
    let error = "INSERT INTO sentinel.sdk_errors (call_name, error_code, error_count, last_message) \
                 VALUES ('heartbeat', -1653, 7, 'ORA-01653: unable to extend')";
    ward.breaks(error, "package errors", "warn", "SELECT * FROM SENTINEL.sdk_errors");
    assert!(ward.doctor().found("package errors").contains("heartbeat: -1653, 7 times, ORA-01653"));
    ward.standin
        .sql("UPDATE sentinel.sdk_errors SET last_seen_at = last_seen_at - interval '2 days'");
    ward.is_well();
    let overdue = |minutes: u32| {
        format!(
            "DELETE FROM sentinel.process_live_status; \
             INSERT INTO sentinel.process_live_status (tenant_id, process_id, status, deadline_at) \
             VALUES ('t', 'p', 'RUNNING', standin.sys_extract_utc(standin.systimestamp()) - interval '{minutes} minutes')"
        )
    };
    ward.standin.sql(&overdue(1));
    ward.is_well();
    ward.breaks(&overdue(20), "reaper", "warn", "systemctl restart sentinel");
}

#[test]
fn without_a_session_the_way_in_is_told_and_nothing_else_is_guessed() {
    let Some(ward) = Ward::open() else { return };
    for (code, mend) in [
        (28001, "ALTER USER SENTINEL_SVC IDENTIFIED BY"),
        (28000, "ALTER USER SENTINEL_SVC ACCOUNT UNLOCK;"),
        (1045, "GRANT CREATE SESSION TO SENTINEL_SVC;"),
        (12541, "lsnrctl"),
    ] {
        let fault = ward.standin.inject(&format!("on=OCISessionBegin do=ora:{code}"));
        ward.breaks("SELECT 1", "session", "fail", mend);
        assert!(ward.standin.hits(&fault) > 0);
        ward.standin.mend(&fault);
    }
    let empty = tempfile::tempdir().unwrap();
    let mut variables = ward.variables();
    variables[2].1 = empty.path().to_str().unwrap();
    let report = doctor(&ward.database(), &variables);
    report.is_complete();
    assert_eq!((report.code, report.verdict("client")), (Some(69), "fail"));
    assert!(report.mend("client").contains("ldconfig"));
}

#[test]
fn the_wallet_and_the_entry_of_an_alias_are_read() {
    let Some(ward) = Ward::open() else { return };
    let wallet = tempfile::tempdir().unwrap();
    let path = wallet.path().display().to_string();
    let report = |alias: bool| {
        let mut variables = ward.variables();
        variables.push(("ORACLE_WALLET_LOCATION", &path));
        let database = if alias { "oracle://DB".to_string() } else { ward.database() };
        let report = doctor(&database, &variables);
        report.is_complete();
        report
    };
    assert_eq!(report(false).verdict("wallet"), "fail", "it is empty");
    let sso = wallet.path().join("cwallet.sso");
    fs::write(&sso, "sealed").unwrap();
    fs::set_permissions(&sso, fs::Permissions::from_mode(0o640)).unwrap();
    let open = report(false);
    assert_eq!((open.verdict("wallet"), open.verdict("wallet certificates")), ("warn", "unknown"));
    assert!(open.mend("wallet certificates").starts_with("orapki wallet display"));
    fs::set_permissions(&sso, fs::Permissions::from_mode(0o400)).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["client".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    params.not_before = rcgen::date_time_ymd(2019, 1, 1);
    let pem = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
    fs::write(wallet.path().join("ewallet.pem"), pem).unwrap();
    let ended = report(false);
    assert_eq!((ended.code, ended.verdict("wallet certificates")), (Some(69), "fail"));
    assert_eq!(ended.verdict("wallet"), "ok");

    let entry = "DB = (DESCRIPTION = (ADDRESS = (HOST = h)) (CONNECT_DATA = (SERVER = POOLED) (SERVICE_NAME = s)))";
    fs::write(wallet.path().join("tnsnames.ora"), entry).unwrap();
    let pooled = report(true);
    assert_eq!(pooled.verdict("descriptor"), "fail", "{:#?}", pooled.findings);
    fs::write(wallet.path().join("tnsnames.ora"), entry.replace("POOLED", "DEDICATED")).unwrap();
    assert_eq!(report(true).verdict("descriptor"), "ok");
}
