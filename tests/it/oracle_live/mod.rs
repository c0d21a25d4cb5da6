//! What only a database can show: the Oracle store against a server, and the server against what the store relies on.
//! This module runs where an address is given in `SENTINEL_TEST_ORACLE_DSN` (with `SENTINEL_TEST_ORACLE_USER` and
//! `SENTINEL_TEST_ORACLE_PASSWORD`, or a wallet), on a schema that `sentinel migrate` has made. Without an address it
//! runs on the stand-in, and says of each test that only a server can pass that it is skipped; with
//! `SENTINEL_TEST_REQUIRE_ORACLE=1` a missing address is a failure.
//!
//! Further settings: `SENTINEL_TEST_ORACLE_OWNER`, the schema; `SENTINEL_TEST_ORACLE_PRODUCER`, a user that may call the
//! package; both with the same password. `SENTINEL_TEST_ORACLE_ROW_SECURITY=1` says that 005 was run, and
//! `SENTINEL_TEST_ORACLE_EMPTY=1` that everything in the schema may be deleted: the store contract needs that.
//! `SENTINEL_TEST_STANDIN_AS_SERVER=1` runs the contract's part for servers on the stand-in, with its clock let go.
//!
//! Every test works with a tenant of its own, so that they need no empty schema.

mod server;

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use sentinel::component::Component;
use sentinel::domain::event::{Envelope, Verdict};
use sentinel::domain::ids::{EventId, IdempotencyKey, ProcessId, StreamKey, TenantId};
use sentinel::domain::log_row::{Level, LogRow};
use sentinel::domain::process::Status;
use sentinel::store::oracle::address::{Address, Given, Secret};
use sentinel::store::oracle::{Oracle, Settings, migrate};
use sentinel::store::{LogFilter, Message, Page, Store};

use crate::by_hand;
use crate::harness::{PATIENCE, stop};
use crate::oracle_standin::{self, Standin};

/// Listeners take whatever is in the queue, so one test has it at a time.
static QUEUE: Mutex<()> = Mutex::new(());

/// What the tests talk to.
struct Place {
    target: String,
    user: Option<String>,
    password: Option<String>,
    /// The schema.
    owner: String,
    client_lib_dir: Option<std::path::PathBuf>,
    /// None: it is a server.
    standin: Option<Standin>,
}

/// The address that is given, or the stand-in. None: neither is to be had, and that was said.
fn place() -> Option<&'static Place> {
    static PLACE: OnceLock<Option<Place>> = OnceLock::new();
    let place = PLACE.get_or_init(|| {
        if let Ok(target) = env::var("SENTINEL_TEST_ORACLE_DSN") {
            return Some(Place {
                target,
                user: env::var("SENTINEL_TEST_ORACLE_USER").ok(),
                password: env::var("SENTINEL_TEST_ORACLE_PASSWORD").ok(),
                owner: env::var("SENTINEL_TEST_ORACLE_OWNER")
                    .unwrap_or_else(|_| "SENTINEL".to_string()),
                client_lib_dir: env::var_os("ORACLE_CLIENT_LIB_DIR").map(Into::into),
                standin: None,
            });
        }
        let required = env::var("SENTINEL_TEST_REQUIRE_ORACLE").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "SENTINEL_TEST_REQUIRE_ORACLE is 1 and SENTINEL_TEST_ORACLE_DSN is not set"
        );
        let standin = oracle_standin::start()?;
        let place = Place {
            target: standin.connect_string.clone(),
            user: Some("SENTINEL".to_string()),
            password: Some("any".to_string()),
            owner: "SENTINEL".to_string(),
            client_lib_dir: Some(standin.library.clone()),
            standin: Some(standin),
        };
        migrate::run(&Settings::new(place.address()), &BTreeMap::new(), false)
            .expect("the schema is made");
        Some(place)
    });
    place.as_ref()
}

impl Place {
    /// A session that knows nothing of the store, for a user.
    fn raw(&self, user: &str) -> oracle::Connection {
        let password = self.password.as_deref().expect("a password for every user");
        let connection = oracle::Connection::connect(user, password, &self.target);
        let connection = connection.expect("a session");
        let schema = format!("ALTER SESSION SET CURRENT_SCHEMA = {}", self.owner);
        connection.execute(&schema, &[]).expect("the schema is named");
        connection
    }

    fn address(&self) -> Address {
        let given = Given {
            target: Some(self.target.clone()),
            user: self.user.clone(),
            password: self.password.clone().map(Secret::new),
            client_lib_dir: self.client_lib_dir.clone(),
            ..Given::default()
        };
        Address::from_settings(&given).expect("an address")
    }
}

/// The schema of the server with nothing in it, which nobody else uses meanwhile.
pub(crate) struct Empty {
    place: &'static Place,
    _queue: MutexGuard<'static, ()>,
}

/// Empties the schema of the server that is named. None: none is, which the live tests say.
pub(crate) fn empty() -> Option<Empty> {
    let as_server = env::var_os("SENTINEL_TEST_STANDIN_AS_SERVER").is_some();
    if env::var_os("SENTINEL_TEST_ORACLE_DSN").is_none() && !as_server {
        return None;
    }
    // Whoever names a schema for the live tests may have data in it.
    if !as_server && env::var("SENTINEL_TEST_ORACLE_EMPTY").as_deref() != Ok("1") {
        let required = env::var("SENTINEL_TEST_REQUIRE_ORACLE").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "SENTINEL_TEST_REQUIRE_ORACLE is 1 and SENTINEL_TEST_ORACLE_EMPTY does not say that the schema may be emptied"
        );
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: the store contract on the server: it empties the schema, and SENTINEL_TEST_ORACLE_EMPTY is not 1"
        );
        return None;
    }
    let place = place()?;
    let empty = Empty { place, _queue: QUEUE.lock() };
    empty.clear();
    Some(empty)
}

impl Empty {
    pub(crate) fn settings(&self) -> Settings {
        Settings { schema: self.place.owner.clone(), ..Settings::new(self.place.address()) }
    }

    fn clear(&self) {
        // Loads the client library.
        drop(Oracle::open(self.settings()).expect("the store opens"));
        let connection = self.place.raw(self.place.user.as_deref().expect("a user"));
        for table in [
            "process_registry",
            "process_live_status",
            "process_runs",
            "process_history",
            "process_logs",
            "events",
            "idempotency",
            "event_identity",
            "stream_counter",
            "stream_state",
            "dead_letter",
        ] {
            connection.execute(&format!("DELETE FROM {table}"), &[]).expect("rows go");
        }
        connection.commit().expect("rows are gone");
        match &self.place.standin {
            Some(standin) => {
                standin.sql("DELETE FROM standin.message; DELETE FROM standin.attempt");
            }
            None => {
                let owner = &self.place.owner;
                let block = format!(
                    "DECLARE o DBMS_AQADM.AQ$_PURGE_OPTIONS_T; BEGIN DBMS_AQADM.PURGE_QUEUE_TABLE(\
                     queue_table => '{owner}.SENTINEL_QUEUE_TAB', purge_condition => NULL, purge_options => o); END;"
                );
                self.place.raw(owner).execute(&block, &[]).expect("messages go");
            }
        }
    }
}

struct Site {
    place: &'static Place,
    store: Oracle,
    tenant: TenantId,
    _queue: MutexGuard<'static, ()>,
}

/// The store of the place that there is.
fn site() -> Option<Site> {
    let place = place()?;
    let queue = QUEUE.lock();
    let settings = Settings { schema: place.owner.clone(), ..Settings::new(place.address()) };
    let store = Oracle::open(settings).expect("the store opens");
    let tenant = format!("t{}", uuid::Uuid::now_v7().simple());
    Some(Site { place, store, tenant: TenantId::parse(&tenant).unwrap(), _queue: queue })
}

/// The same, for what only a server can show.
fn server(what: &str) -> Option<Site> {
    let site = site()?;
    if site.place.standin.is_some() {
        let line = format!("SKIPPED: {what}: SENTINEL_TEST_ORACLE_DSN names no server\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        return None;
    }
    Some(site)
}

impl Site {
    /// Lets time pass for the queue: on a server by itself, while a claim waits.
    fn let_pass(&self, pause: Duration) {
        if let Some(standin) = &self.place.standin {
            standin.forward(pause);
        }
    }

    /// A session that knows nothing of the store, for a user.
    fn raw(&self, user: &str) -> oracle::Connection {
        self.place.raw(user)
    }

    /// The same for the user of the service.
    fn raw_service(&self) -> oracle::Connection {
        self.raw(self.place.user.as_deref().expect("a user"))
    }

    fn envelope(&self, stream: &str, event_type: &str, payload: &str) -> Envelope {
        let id = uuid::Uuid::now_v7();
        let (event_id, number) = (EventId::from_uuid(id), id.as_u128());
        by_hand::envelope(&self.tenant, event_id, stream, event_type, payload, number)
    }

    fn accept(&self, batch: Vec<Envelope>) -> Vec<Verdict> {
        self.store.intake().unwrap().accept(self.store.now(), batch).unwrap()
    }

    /// Applies everything that is in the queue, and returns how many messages of this tenant there were.
    fn apply(&self) -> usize {
        let (signal, _holder): (_, Component) = stop();
        let mut listener = self.store.listener().unwrap();
        let mut own = 0;
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "the queue comes to no end");
            let claim = listener.claim(64, Duration::from_secs(1), &signal).unwrap();
            if claim.messages.is_empty() {
                return own;
            }
            own += claim
                .messages
                .iter()
                .filter(|message| {
                    matches!(message, Message::Event(event) if event.envelope.tenant == self.tenant)
                })
                .count();
            let now = self.store.now();
            let change = by_hand::decide(&mut *listener, &claim, now);
            listener.settle(claim, change, now).unwrap();
        }
    }
}

#[test]
fn batches_of_no_one_and_many_messages_come_through_the_queue_whole() {
    let Some(site) = site() else { return };
    site.apply();
    assert_eq!(site.accept(Vec::new()), []);
    assert_eq!(site.apply(), 0);
    for count in [1, 64, 200] {
        let stream = format!("s{count}");
        let batch = (0..count).map(|_| site.envelope(&stream, "Ordered", "{}")).collect();
        let verdicts = site.accept(batch);
        assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Accepted(_))));
        assert_eq!(site.apply(), count);
        let key = StreamKey::parse(&stream).unwrap();
        let mut reader = site.store.reader().unwrap();
        let events = reader.stream_events(&site.tenant, &key, 0, 1000).unwrap().unwrap();
        let numbers: Vec<u64> = events.iter().map(|event| event.event.stream_seq).collect();
        assert_eq!(numbers, (1..=count as u64).collect::<Vec<_>>());
    }
}

#[test]
fn payloads_of_every_length_and_script_come_back_as_they_were() {
    let Some(site) = site() else { return };
    let mut sent = Vec::new();
    for chars in [0, 1, 3990, 8191, 8192, 8193, 32_767, 200_000] {
        for letter in ["x", "ä", "😀"] {
            sent.push(site.envelope(
                "s",
                "Ordered",
                &format!("{{\"t\":\"{}\"}}", letter.repeat(chars)),
            ));
        }
    }
    site.accept(sent.clone());
    assert_eq!(site.apply(), sent.len());
    let mut reader = site.store.reader().unwrap();
    for envelope in sent {
        let found = reader.event(&site.tenant, &envelope.event_id).unwrap().unwrap();
        assert!(found.event.envelope == envelope, "{} bytes", envelope.payload.len());
    }
}

#[test]
fn an_empty_queue_answers_in_about_the_time_that_was_given() {
    let Some(site) = site() else { return };
    site.apply();
    let (signal, _holder) = stop();
    let mut listener = site.store.listener().unwrap();
    listener.claim(1, Duration::ZERO, &signal).unwrap();
    let began = Instant::now();
    let claim = listener.claim(10, Duration::from_secs(2), &signal).unwrap();
    assert!(claim.messages.is_empty());
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&began.elapsed()));
}

#[test]
fn what_a_lost_listener_held_is_applied_once_by_another() {
    let Some(site) = site() else { return };
    site.apply();
    let batch = (0..5).map(|_| site.envelope("s", "Ordered", "{}")).collect();
    site.accept(batch);
    let (signal, _holder) = stop();
    let mut lost = site.store.listener().unwrap();
    let held = lost.claim(10, Duration::from_secs(2), &signal).unwrap();
    assert_eq!(held.messages.len(), 5);
    drop(lost);
    let began = Instant::now();
    let mut applied = 0;
    // They come back after the queue's retry delay.
    while applied < 5 && began.elapsed() < PATIENCE {
        site.let_pass(Duration::from_secs(1));
        applied += site.apply();
    }
    assert_eq!(applied, 5);
    assert_eq!(site.apply(), 0);
}

#[test]
fn repeats_get_the_first_answer_and_a_start_is_seen_at_once() {
    let Some(site) = site() else { return };
    let mut first = site.envelope("p", "process.started", r#"{"process_name":"import"}"#);
    first.key = Some(IdempotencyKey::parse("k").unwrap());
    let Verdict::Accepted(receipt) = site.accept(vec![first.clone()]).remove(0) else { panic!() };
    let mut reader = site.store.reader().unwrap();
    let process = ProcessId::parse("p").unwrap();
    let status = |reader: &mut dyn sentinel::store::Reader| {
        reader.status(&site.tenant, &process).unwrap().expect("it is known").row.status
    };
    assert_eq!(status(&mut *reader), Status::Running, "before any listener");
    assert_eq!(site.accept(vec![first.clone()]), [Verdict::Replayed(receipt)]);
    let mut other = first;
    other.hash.0[0] ^= 1;
    assert_eq!(site.accept(vec![other]), [Verdict::KeyReused]);
    assert_eq!(site.apply(), 1);
    site.accept(vec![site.envelope("p", "process.completed", "{}")]);
    site.apply();
    assert_eq!(status(&mut *reader), Status::Completed);
    let page = Page { limit: 10, after: None };
    let runs = reader.runs(&site.tenant, &process, &page).unwrap().unwrap().rows;
    assert_eq!(runs.len(), 1);
}

#[test]
fn lines_come_back_as_they_were_said_and_two_tenants_never_see_each_other() {
    let Some(site) = site() else { return };
    let rows: Vec<LogRow> = [1, 250, 251, 1001, 4000]
        .map(|chars| LogRow {
            component: Some("loader".into()),
            details: Some(format!("{{\"n\":\"{}\"}}", "d".repeat(chars * 8)).into()),
            stack_trace: Some("s".repeat(chars * 8).into()),
            duration_us: Some(7),
            ..LogRow::plain(
                site.tenant.clone(),
                ProcessId::parse("p").unwrap(),
                Level::Warn,
                "m".repeat(chars),
                site.store.now(),
            )
        })
        .into();
    site.store.logs().unwrap().write(&rows).unwrap();
    let mut reader = site.store.reader().unwrap();
    let process = ProcessId::parse("p").unwrap();
    let (mut page, mut found) = (Page { limit: 2, after: None }, Vec::new());
    loop {
        let all = LogFilter::default();
        let part = reader.logs(&site.tenant, &process, &all, &page).unwrap().unwrap();
        found.extend(part.rows.into_iter().map(|line| line.row));
        match part.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    assert_eq!(found, rows);
    let stranger = TenantId::parse("stranger-of-the-live-tests").unwrap();
    let page = Page { limit: 10, after: None };
    assert_eq!(reader.logs(&stranger, &process, &LogFilter::default(), &page).unwrap(), None);
}

/// A view that is hidden from the service has its grant in the finding; any other refusal is of a statement of ours.
#[test]
fn the_doctor_asks_nothing_that_the_database_does_not_understand() {
    let Some(place) = place() else { return };
    let settings = Settings { schema: place.owner.clone(), ..Settings::new(place.address()) };
    let findings = sentinel::store::oracle::doctor::examine(&settings);
    let refused: Vec<_> =
        findings.iter().filter(|finding| finding.found.starts_with("not judged: ORA-")).collect();
    assert!(refused.is_empty() && findings.len() > 20, "{refused:#?} of {findings:#?}");
}
