//! What the store relies on, asked of the database itself: redelivery and the exception queue, breaks, plans, the errors
//! of arrays, time zones, retention, row security, and the package as its callers see it. This module goes by the driver
//! where the store has no such question.

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oracle::sql_type::{OracleType, RefCursor, ToSql};
use oracle::{Connection, ErrorKind, SqlValue};
use sentinel::component::{Component, End};
use sentinel::domain::event::Verdict;
use sentinel::domain::ids::{ProcessId, StreamKey};
use sentinel::domain::process::Status;
use sentinel::domain::time::Timestamp;
use sentinel::store::oracle::address::{Address, Given, Secret};
use sentinel::store::oracle::{Settings, migrate};
use sentinel::store::{Fresh, LogFilter, Page, Store};

use super::{server, site};
use crate::harness::{PATIENCE, eventually};

/// A text as VARCHAR2: the driver would send a bare one as NVARCHAR2.
struct Text<'a>(&'a str);

impl ToSql for Text<'_> {
    fn oratype(&self, _: &Connection) -> oracle::Result<OracleType> {
        Ok(OracleType::Varchar2(4000))
    }

    fn to_sql(&self, value: &mut SqlValue<'_>) -> oracle::Result<()> {
        self.0.to_sql(value)
    }
}

fn text(value: &str) -> Text<'_> {
    Text(value)
}

/// Messages of one raw dequeue, in the transaction of `connection`.
fn dequeued(connection: &Connection, wait_s: i32) -> oracle::Result<usize> {
    let block = "BEGIN sentinel_svc.dequeue_batch(:rows_max, :wait_s, :cur); END;";
    let statement = connection.execute(block, &[&100i32, &wait_s, &OracleType::RefCursor])?;
    let mut cursor: RefCursor = statement.bind_value(3)?;
    let mut count = 0;
    for row in cursor.query()? {
        row?;
        count += 1;
    }
    Ok(count)
}

/// How many messages are in the exception queue.
fn expired(connection: &Connection) -> u64 {
    let block = "BEGIN sentinel_svc.queue_state(:cur); END;";
    let statement = connection.execute(block, &[&OracleType::RefCursor]).unwrap();
    let mut cursor: RefCursor = statement.bind_value(1).unwrap();
    let count = |row: oracle::Result<oracle::Row>| row.unwrap().get::<_, u64>("EXPIRED").unwrap();
    cursor.query().unwrap().map(count).sum()
}

/// How many seconds the oldest transaction has been open that may hold lines.
fn open_writes(connection: &Connection) -> i64 {
    let block = "BEGIN sentinel_svc.open_writes(:cur); END;";
    let statement = connection.execute(block, &[&OracleType::RefCursor]).unwrap();
    let mut cursor: RefCursor = statement.bind_value(1).unwrap();
    cursor.query().unwrap().map(|row| row.unwrap().get::<_, i64>("AGE_S").unwrap()).sum()
}

#[test]
fn four_rollbacks_lead_into_the_exception_queue_and_the_sweep_out_of_it() {
    let Some(site) = site() else { return };
    site.apply();
    site.accept(vec![site.envelope("s", "Ordered", "{}")]);
    let connection = site.raw_service();
    let (began, mut deliveries) = (Instant::now(), 0);
    // The retry delay is ten seconds, and the queue monitor moves it a while later.
    while expired(&connection) == 0 {
        assert!(began.elapsed() < 4 * PATIENCE, "{deliveries} deliveries");
        if dequeued(&connection, 2).unwrap() > 0 {
            deliveries += 1;
            assert!(deliveries <= 4, "more than max_retries allows");
        }
        connection.rollback().unwrap();
        site.let_pass(Duration::from_secs(11));
    }
    assert_eq!(deliveries, 4, "the first and three retries");
    // A listener looks there when nothing else is to be done, and applies it like everything.
    let began = Instant::now();
    let key = StreamKey::parse("s").unwrap();
    let mut reader = site.store.reader().unwrap();
    loop {
        site.apply();
        if reader.stream_events(&site.tenant, &key, 0, 9).unwrap().is_some() {
            break;
        }
        assert!(began.elapsed() < 2 * PATIENCE, "it is not swept");
    }
    assert_eq!(expired(&connection), 0);
}

#[test]
fn a_break_ends_the_wait_for_a_message_and_keeps_the_session() {
    let Some(site) = site() else { return };
    site.apply();
    let connection = Arc::new(site.raw_service());
    let waits = Arc::clone(&connection);
    let (ended, _) = crossbeam::channel::unbounded();
    let (says, hears) = crossbeam::channel::unbounded();
    let mut waiting = Component::start("waiting", ended, move |_| {
        let began = Instant::now();
        let outcome = dequeued(&waits, 30);
        says.send((outcome.map_err(|error| error.to_string()), began.elapsed()))?;
        Ok(())
    })
    .unwrap();
    // One that comes before the call is lost, so it is sent until the call is over.
    let (outcome, took) = loop {
        match hears.recv_timeout(Duration::from_secs(1)) {
            Ok(over) => break over,
            Err(_) => connection.break_execution().unwrap(),
        }
    };
    let words = outcome.unwrap_err();
    assert!(words.contains("ORA-01013"), "{words}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(matches!(waiting.join_by(Instant::now() + PATIENCE), End::Clean));
    connection.rollback().unwrap();
    let one: i32 = connection.query_row_as("SELECT 1 FROM dual", &[]).unwrap();
    assert_eq!(one, 1);
}

#[test]
fn the_plan_goes_by_the_key_and_a_national_text_would_turn_that_off() {
    let Some(site) = server("plans") else { return };
    let connection = site.raw_service();
    let plan = |literal: &str| -> String {
        let explained = format!(
            "EXPLAIN PLAN SET STATEMENT_ID = 'sentinel' FOR SELECT status FROM process_live_status \
             WHERE tenant_id = {literal} AND process_id = {literal}"
        );
        connection.execute(&explained, &[]).unwrap();
        let lines = "SELECT plan_table_output FROM TABLE(DBMS_XPLAN.DISPLAY('PLAN_TABLE', 'sentinel', 'ALL'))";
        let lines = connection.query_as::<Option<String>>(lines, &[]).unwrap();
        let whole: Vec<String> = lines.filter_map(|line| line.unwrap()).collect();
        connection.rollback().unwrap();
        whole.join("\n")
    };
    let ours = plan("'x'");
    assert!(ours.contains("PROCESS_LIVE_STATUS_PK") && !ours.contains("SYS_OP_C2C"), "{ours}");
    let national = plan("N'x'");
    assert!(national.contains("SYS_OP_C2C"), "the driver's default bind would do this: {national}");
}

#[test]
fn errors_of_an_array_name_their_rows_and_the_others_are_written() {
    let Some(site) = site() else { return };
    let owner = site.raw(&site.place.owner);
    for table in ["live_child", "live_parent"] {
        // From a run that was broken off.
        let _ = owner.execute(&format!("DROP TABLE {table}"), &[]);
    }
    owner
        .execute(
            "CREATE TABLE live_parent (id NUMBER(9) NOT NULL, CONSTRAINT live_parent_pk PRIMARY KEY (id))",
            &[],
        )
        .unwrap();
    owner
        .execute(
            "CREATE TABLE live_child (id NUMBER(9) NOT NULL, parent_id NUMBER(9) NOT NULL, n NUMBER(9) NOT NULL, \
             CONSTRAINT live_child_pk PRIMARY KEY (id), CONSTRAINT live_child_n CHECK (n > 0), \
             CONSTRAINT live_child_fk FOREIGN KEY (parent_id) REFERENCES live_parent (id))",
            &[],
        )
        .unwrap();
    owner.execute("INSERT INTO live_parent (id) VALUES (1)", &[]).unwrap();
    let insert = "INSERT INTO live_child (id, parent_id, n) VALUES (:id, :parent_id, :n)";
    let mut batch = owner.batch(insert, 10).with_batch_errors().with_row_counts().build().unwrap();
    let rows: [(i32, i32, Option<i32>); 6] = [
        (1, 1, Some(1)),
        (1, 1, Some(1)),
        (2, 1, Some(0)),
        (3, 7, Some(1)),
        (4, 1, None),
        (5, 1, Some(1)),
    ];
    for column in 1..=3 {
        batch.set_type(column, &OracleType::Number(9, 0)).unwrap();
    }
    for (id, parent, n) in &rows {
        batch.append_row(&[id, parent, n]).unwrap();
    }
    let error = batch.execute().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BatchErrors, "{error}");
    let mut told: Vec<(u32, i32)> =
        error.batch_errors().unwrap().iter().map(|error| (error.offset(), error.code())).collect();
    told.sort_unstable();
    assert_eq!(told, [(1, 1), (2, 2290), (3, 2291), (4, 1400)]);
    assert_eq!(batch.row_counts().unwrap(), [1, 0, 0, 0, 0, 1]);
    drop(batch);
    let written: i32 = owner.query_row_as("SELECT COUNT(*) FROM live_child", &[]).unwrap();
    assert_eq!(written, 2);
    owner.rollback().unwrap();
    for table in ["live_child", "live_parent"] {
        owner.execute(&format!("DROP TABLE {table}"), &[]).unwrap();
    }
}

#[test]
fn times_are_the_same_whatever_zone_a_session_has_and_on_the_days_when_clocks_change() {
    let Some(site) = site() else { return };
    site.apply();
    let year = &site.store.now().to_string()[..4];
    let mut sent = Vec::new();
    // The hours that there are twice, and not at all, in Central Europe and in New York.
    for moment in [
        format!("{year}-03-29T01:30:00.000001Z"),
        format!("{year}-03-29T00:59:59.999999Z"),
        format!("{year}-10-25T00:30:00Z"),
        format!("{year}-10-25T01:30:00Z"),
        format!("{year}-03-08T07:30:00Z"),
        format!("{year}-11-01T06:30:00Z"),
    ] {
        let mut envelope = site.envelope("s", "Ordered", "{}");
        envelope.occurred_at = Some(Timestamp::parse(&moment).unwrap());
        sent.push(envelope);
    }
    site.accept(sent.clone());
    assert_eq!(site.apply(), sent.len());
    let mut reader = site.store.reader().unwrap();
    for envelope in &sent {
        let found = reader.event(&site.tenant, &envelope.event_id).unwrap().unwrap();
        assert_eq!(found.event.envelope.occurred_at, envelope.occurred_at);
    }
    if site.place.standin.is_some() {
        return;
    }
    // What is stored has no zone: a session of another one reads the same.
    let connection = site.raw_service();
    for zone in ["Europe/Berlin", "America/New_York", "+00:00"] {
        connection.execute(&format!("ALTER SESSION SET TIME_ZONE = '{zone}'"), &[]).unwrap();
        let ask = "SELECT TO_CHAR(occurred_utc, 'YYYY-MM-DD\"T\"HH24:MI:SS.FF6\"Z\"') FROM events \
                   WHERE tenant_id = :tenant_id AND event_id = :event_id";
        for envelope in &sent {
            let binds = [text(site.tenant.as_str()), text(envelope.event_id.as_str())];
            let stored: String = connection.query_row_as(ask, &[&binds[0], &binds[1]]).unwrap();
            assert_eq!(Timestamp::parse(&stored), envelope.occurred_at, "{zone}");
        }
    }
}

#[test]
fn retention_drops_what_is_old_and_keeps_what_is_not() {
    let Some(site) = site() else { return };
    site.apply();
    let moment = |text| Timestamp::parse(text).unwrap();
    let mut intake = site.store.intake().unwrap();
    for day in ["2021-06-01T12:00:00Z", "2021-06-02T12:00:00Z"] {
        let old = site.envelope("old", "Ordered", "{}");
        let verdicts = intake.accept(moment(day), vec![old]).unwrap();
        assert!(matches!(verdicts[..], [Verdict::Accepted(_)]), "{verdicts:?}");
    }
    site.accept(vec![site.envelope("new", "Ordered", "{}")]);
    assert_eq!(site.apply(), 3);
    let connection = site.raw_service();
    let days = || -> i64 {
        let ask = "SELECT COUNT(*) FROM all_tab_partitions WHERE table_owner = :owner AND table_name = 'EVENTS'";
        connection.query_row_as(ask, &[&text(&site.place.owner)]).unwrap()
    };
    let partitioned = site.place.standin.is_none() && {
        let ask = "SELECT value FROM sentinel_setting WHERE name = 'partitioning'";
        connection.query_row_as::<String>(ask, &[]).unwrap() == "ON"
    };
    let before = if partitioned { days() } else { 0 };
    let mut keeper = site.store.keeper().unwrap();
    let began = Instant::now();
    while keeper.archive(moment("2022-01-01T00:00:00Z"), 500).unwrap() > 0 {
        assert!(began.elapsed() < PATIENCE, "it comes to no end");
    }
    let count = |stream: &str| -> i64 {
        let ask =
            "SELECT COUNT(*) FROM events WHERE tenant_id = :tenant_id AND stream_key = :stream_key";
        let binds = [text(site.tenant.as_str()), text(stream)];
        connection.query_row_as(ask, &[&binds[0], &binds[1]]).unwrap()
    };
    assert_eq!((count("old"), count("new")), (0, 1));
    if partitioned {
        assert_eq!(before - days(), 2, "a partition for each of the old days");
    }
}

#[test]
fn whoever_names_no_tenant_sees_no_rows_under_row_security() {
    let Some(site) = server("row security") else { return };
    if env::var("SENTINEL_TEST_ORACLE_ROW_SECURITY").as_deref() != Ok("1") {
        let line = b"SKIPPED: row security: SENTINEL_TEST_ORACLE_ROW_SECURITY is not 1 (005 is optional)\n";
        let _ = std::io::stderr().write_all(line);
        return;
    }
    site.apply();
    site.accept(vec![site.envelope("s", "Ordered", "{}")]);
    site.apply();
    let count = |connection: &Connection| -> i64 {
        connection.query_row_as("SELECT COUNT(*) FROM events", &[]).unwrap()
    };
    let service = site.raw_service();
    assert!(count(&service) > 0, "sweeps see everything");
    let name = |tenant: &str| {
        let block = "BEGIN sentinel_svc.set_tenant(:tenant_id); END;";
        service.execute(block, &[&text(tenant)]).unwrap();
    };
    name(site.tenant.as_str());
    assert_eq!(count(&service), 1, "that of the tenant");
    name("nobody-of-the-live-tests");
    assert_eq!(count(&service), 0);
    let producer = env::var("SENTINEL_TEST_ORACLE_PRODUCER").expect("a user without a tenant");
    assert_eq!(count(&site.raw(&producer)), 0, "a user for reports that names nobody");
}

#[test]
fn the_schema_has_no_errors_and_is_migrated_again_without_harm() {
    let Some(site) = server("the schema's own code") else { return };
    let owner = site.raw(&site.place.owner);
    let problems = || -> Vec<(String, i32, String)> {
        let ask = "SELECT name, line, text FROM user_errors WHERE attribute = 'ERROR'";
        owner.query_as(ask, &[]).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(problems(), []);
    let password = site.place.password.clone().map(Secret::new);
    let given = Given {
        target: Some(site.place.target.clone()),
        user: Some(site.place.owner.clone()),
        password,
        client_lib_dir: site.place.client_lib_dir.clone(),
        ..Given::default()
    };
    let settings = Settings::new(Address::from_settings(&given).unwrap());
    let names = ["service", "producer", "context"].into_iter().zip(["SVC", "APP", "CTX"]);
    let names: BTreeMap<String, String> = names
        .map(|(name, end)| (format!("sentinel_{name}"), format!("{}_{end}", site.place.owner)))
        .collect();
    migrate::run(&settings, &names, false).expect("what was installed is brought up to date");
    let again = migrate::run(&settings, &names, false).expect("and again");
    assert!(again.iter().all(|(_, step)| *step == migrate::Step::UpToDate), "{again:?}");
    assert_eq!(problems(), []);
}

#[test]
fn a_caller_of_the_package_is_watched_and_one_that_dies_is_found() {
    let Some(site) = server("the package") else { return };
    let producer = env::var("SENTINEL_TEST_ORACLE_PRODUCER").expect("a user of the package");
    let caller = site.raw(&producer);
    let start = |connection: &Connection| -> String {
        let block = "BEGIN :process_id := sentinel_pkg.start_proc('CONTRACT_PKG', 'CREATE_CONTRACT', :tenant_id); END;";
        let tenant = text(site.tenant.as_str());
        let started = connection.execute(block, &[&OracleType::Varchar2(100), &tenant]).unwrap();
        started.bind_value(1).unwrap()
    };
    let status = |process: &str| {
        let mut reader = site.store.reader().unwrap();
        let process = ProcessId::parse(process).unwrap();
        reader.status(&site.tenant, &process).unwrap().expect("it is known").row
    };
    let process = start(&caller);
    assert_eq!(status(&process).status, Status::Running, "from the call on");
    let report = |block: &str| {
        caller.execute(block, &[&text(&process)]).unwrap();
        // Whatever the caller does with its own transaction.
        caller.rollback().unwrap();
        site.apply();
        status(&process)
    };
    let row = report("BEGIN sentinel_pkg.update_progress(:id, 'VALIDATING_INPUT', 10); END;");
    assert_eq!(row.current_step.as_deref(), Some("VALIDATING_INPUT"));
    report("BEGIN sentinel_pkg.log_info(:id, 'inserted', '{\"rows\": 1}'); END;");
    let row =
        report("BEGIN sentinel_pkg.complete_process(:id, '{\"contract_id\":\"C-17\"}'); END;");
    assert_eq!(row.status, Status::Completed);
    let page = Page { limit: 10, after: None };
    let mut reader = site.store.reader().unwrap();
    let id = ProcessId::parse(&process).unwrap();
    let lines = reader.logs(&site.tenant, &id, &LogFilter::default(), &page).unwrap().unwrap();
    assert_eq!(lines.rows.len(), 1);
    // One whose session ends without a word is found, and not before.
    let dies = site.raw(&producer);
    let lost = start(&dies);
    site.apply();
    let mut keeper = site.store.keeper().unwrap();
    let mut found = |until: Timestamp| -> bool {
        let deserted = keeper.deserted(until, 100).unwrap();
        deserted.iter().any(|found| found.process.as_str() == lost)
    };
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(15) {
        assert!(!found(site.store.now()), "its session lives");
        site.apply();
    }
    dies.close().unwrap();
    let began = Instant::now();
    while !found(site.store.now()) {
        assert!(began.elapsed() < PATIENCE, "its session is gone");
        site.apply();
    }
}

#[test]
fn the_age_of_a_transaction_that_writes_lines_is_told_until_it_ends() {
    let Some(site) = site() else { return };
    let (writer, asker) = (site.raw_service(), site.raw_service());
    writer.set_module("process-sentinel").unwrap();
    writer.set_action("logs").unwrap();
    let insert = "INSERT INTO process_logs (tenant_id, process_id, log_level, logged_at, message) VALUES \
                  (:tenant_id, :process_id, 'INFO', SYS_EXTRACT_UTC(SYSTIMESTAMP), :message)";
    let line = [text(site.tenant.as_str()), text("p"), text("not committed")];
    writer.execute(insert, &[&line[0], &line[1], &line[2]]).unwrap();
    eventually("it is some seconds old", || (open_writes(&asker) > 2).then_some(()));
    writer.rollback().unwrap();
    eventually("it has ended", || (open_writes(&asker) == 0).then_some(()));
}

#[test]
fn what_one_instance_applies_another_one_hears_of() {
    let Some(site) = site() else { return };
    site.apply();
    let settings =
        Settings { schema: site.place.owner.clone(), ..Settings::new(site.place.address()) };
    let other = sentinel::store::oracle::Oracle::open(settings).unwrap();
    let mut tail = other.tail().unwrap().expect("instances share this store");
    assert_eq!(tail.look().unwrap(), Fresh::Anything);
    site.accept(vec![site.envelope("s", "Ordered", "{}")]);
    site.apply();
    let wanted = (site.tenant.clone(), StreamKey::parse("s").unwrap());
    let began = Instant::now();
    loop {
        match tail.look().unwrap() {
            Fresh::Of { streams, .. } if streams.contains(&wanted) => break,
            Fresh::Of { .. } => assert!(began.elapsed() < PATIENCE, "nobody says so"),
            Fresh::Anything => panic!("there is little to look at"),
        }
    }
    let Fresh::Of { streams, .. } = tail.look().unwrap() else { panic!() };
    assert!(!streams.contains(&wanted), "told once");
}
