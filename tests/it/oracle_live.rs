//! What only a database can show: the Oracle store against a server. This module runs where an address is given in
//! `SENTINEL_TEST_ORACLE_DSN` (with `SENTINEL_TEST_ORACLE_USER` and `SENTINEL_TEST_ORACLE_PASSWORD`, or a wallet), on
//! a schema that `sentinel migrate` has made; else it says that it is skipped, and fails if
//! `SENTINEL_TEST_REQUIRE_ORACLE` is 1.
//!
//! Every test works with a tenant of its own, so that they need no empty schema.

use std::env;
use std::io::Write;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use sentinel::component::Component;
use sentinel::domain::apply::{self, Item};
use sentinel::domain::event::{Envelope, IdOrigin, PayloadHash, TraceContext, Verdict};
use sentinel::domain::ids::{
    EventId, EventType, IdempotencyKey, ProcessId, Source, StreamKey, TenantId,
};
use sentinel::domain::log_row::{Level, LogRow};
use sentinel::domain::process::{Policy, State, Status};
use sentinel::store::oracle::address::{Address, Given, Secret};
use sentinel::store::oracle::{Oracle, Settings};
use sentinel::store::{LogFilter, Message, Page, Store};

use crate::harness::{PATIENCE, stop};

const POLICY: Policy =
    Policy { timeout: Duration::from_secs(3600), heartbeat_interval: Duration::from_secs(30) };

/// Listeners take whatever is in the queue, so one test has it at a time.
static QUEUE: Mutex<()> = Mutex::new(());

struct Site {
    store: Oracle,
    tenant: TenantId,
    _queue: MutexGuard<'static, ()>,
}

/// The store of the address that is given. None: there is none, and that was said.
fn site() -> Option<Site> {
    let Ok(target) = env::var("SENTINEL_TEST_ORACLE_DSN") else {
        let required = env::var("SENTINEL_TEST_REQUIRE_ORACLE").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "SENTINEL_TEST_REQUIRE_ORACLE is 1 and SENTINEL_TEST_ORACLE_DSN is not set"
        );
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: the live tests of the Oracle store: SENTINEL_TEST_ORACLE_DSN is not set"
        );
        return None;
    };
    let given = Given {
        target: Some(target),
        user: env::var("SENTINEL_TEST_ORACLE_USER").ok(),
        password: env::var("SENTINEL_TEST_ORACLE_PASSWORD").ok().map(Secret::new),
        client_lib_dir: env::var_os("ORACLE_CLIENT_LIB_DIR").map(Into::into),
        ..Given::default()
    };
    let address = Address::from_settings(&given).expect("an address");
    let schema = env::var("SENTINEL_TEST_ORACLE_OWNER").unwrap_or_else(|_| "SENTINEL".to_string());
    let queue = QUEUE.lock();
    let store =
        Oracle::open(Settings { schema, ..Settings::new(address) }).expect("the store opens");
    let tenant = format!("t{}", uuid::Uuid::now_v7().simple());
    Some(Site { store, tenant: TenantId::parse(&tenant).unwrap(), _queue: queue })
}

impl Site {
    fn envelope(&self, stream: &str, event_type: &str, payload: &str) -> Envelope {
        let id = uuid::Uuid::now_v7();
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(id.as_bytes());
        Envelope {
            tenant: self.tenant.clone(),
            event_id: EventId::from_uuid(id),
            id_origin: IdOrigin::Caller,
            source: Source::parse("orders-api").unwrap(),
            event_type: EventType::parse(event_type).unwrap(),
            stream: StreamKey::parse(stream).unwrap(),
            occurred_at: None,
            schema_version: 1,
            payload: payload.into(),
            key: None,
            hash: PayloadHash(hash),
            trace: TraceContext { trace_id: [7; 16], parent_id: [3; 8], sampled: true },
        }
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
            let items: Vec<Item<'_>> = claim
                .messages
                .iter()
                .map(|message| match message {
                    Message::Event(event) => Item::Event(event),
                    Message::Undecodable { position, bytes, problem } => {
                        Item::Undecodable { position: *position, bytes, problem }
                    }
                })
                .collect();
            own += claim
                .messages
                .iter()
                .filter(|message| {
                    matches!(message, Message::Event(event) if event.envelope.tenant == self.tenant)
                })
                .count();
            let touched = apply::touched(&items);
            let states = listener.load(&touched).unwrap();
            let loaded = touched
                .into_iter()
                .zip(states)
                .filter_map(|(name, state)| Some((name, state?)))
                .collect();
            let now = self.store.now();
            let change = apply::decide(&items, loaded, &POLICY, now, &State::merge);
            drop(items);
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
            tenant: site.tenant.clone(),
            process: ProcessId::parse("p").unwrap(),
            level: Level::Warn,
            message: "m".repeat(chars).into(),
            event_type: None,
            component: Some("loader".into()),
            details: Some(format!("{{\"n\":\"{}\"}}", "d".repeat(chars * 8)).into()),
            stack_trace: Some("s".repeat(chars * 8).into()),
            logged_at: site.store.now(),
            duration_us: Some(7),
            correlation_id: None,
            trace_id: None,
            span_id: None,
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
