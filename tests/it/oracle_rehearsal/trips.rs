//! What a piece of work costs in round trips, as Oracle's client would make them: the stand-in counts.

use std::collections::BTreeMap;
use std::time::Duration;

use sentinel::domain::apply::{self, Item};
use sentinel::domain::ids::{ProcessId, TenantId};
use sentinel::domain::log_row::{Level, LogRow};
use sentinel::domain::process::State;
use sentinel::domain::time::Timestamp;
use sentinel::service::{Parts, wall_clock};
use sentinel::store::Message;
use serde_json::json;

use super::Site;
use crate::by_hand::POLICY;
use crate::harness::{envelope, stop};

type Trips = BTreeMap<String, u64>;

impl Site {
    /// What `work` costs the sessions of a role.
    fn cost<T>(&self, role: &str, work: impl FnOnce() -> T) -> (T, Trips) {
        let before = self.standin.trips(role);
        let done = work();
        let added = |(what, count): (String, u64)| {
            let added = count - before.get(&what).copied().unwrap_or(0);
            (added > 0).then_some((what, added))
        };
        (done, self.standin.trips(role).into_iter().filter_map(added).collect())
    }
}

fn trips(expected: &[(&str, u64)]) -> Trips {
    expected.iter().map(|(what, count)| ((*what).to_owned(), *count)).collect()
}

/// Lines of one process, of a usual length.
pub(super) fn lines(count: usize) -> Vec<LogRow> {
    let process = ProcessId::parse("p").expect("a process");
    let tenant = TenantId::parse("demo").expect("a tenant");
    let logged_at = Timestamp::from_micros(1_769_594_400_000_000);
    let line = |n: usize| {
        let message = format!("line {n} of a process that has much to say about what it is doing");
        let (tenant, process) = (tenant.clone(), process.clone());
        LogRow {
            component: Some("loader".into()),
            details: Some(r#"{"rows": 17}"#.into()),
            duration_us: Some(7),
            ..LogRow::plain(tenant, process, Level::Info, message, logged_at)
        }
    };
    (0..count).map(line).collect()
}

#[test]
fn a_thousand_messages_are_taken_in_three_round_trips_and_settled_in_few() {
    let Some(site) = Site::start() else { return };
    // The listener is driven by hand, so that its steps are counted one by one.
    let parts = Parts { listener: false, ..Parts::ALL };
    let service = site.in_process(wall_clock(), parts, &[]);
    let store = service.service.store();
    let mut session = store.listener().expect("a session");
    let (stop, _idle) = stop();
    // The session is opened by its first call, which also looks for what was tried too often.
    assert!(session.claim(1, Duration::ZERO, &stop).expect("a claim").messages.is_empty());
    let idle =
        site.cost("/listener", || session.claim(1000, Duration::ZERO, &stop).expect("a claim"));
    assert_eq!(idle.1, trips(&[("execute", 1), ("fetch", 1), ("commit", 1)]), "nothing to take");

    let mut client = site.client_at(service.service.api_address(), "demo");
    let lines: Vec<String> =
        (0..1000).map(|id| envelope(id, "orders", json!({"n": 1})).to_string()).collect();
    let fields = [("Content-Type", "application/x-ndjson")];
    client.request("POST", "/v1/events", &fields, lines.join("\n").as_bytes()).expect(202);
    let (claim, cost) =
        site.cost("/listener", || session.claim(1000, Duration::ZERO, &stop).expect("a claim"));
    assert_eq!(claim.messages.len(), 1000);
    // The call, all of its rows, and the savepoint.
    assert_eq!(cost, trips(&[("execute", 2), ("fetch", 1)]));

    let items: Vec<Item<'_>> = claim.messages.iter().map(Message::item).collect();
    let loaded = BTreeMap::<_, State>::new();
    let change = apply::decide(&items, loaded, &POLICY, store.now(), &State::merge);
    let ((), cost) = site.cost("/listener", || {
        session.settle(claim, change, store.now()).expect("settled");
    });
    // Events, and the one stream that they are of, which is new: an update that meets nothing, and its insert.
    assert_eq!(cost, trips(&[("execute", 3), ("commit", 1)]));
    drop(session);
    service.stop();
}

#[test]
fn a_thousand_log_rows_are_one_round_trip_and_its_commit() {
    let Some(site) = Site::start() else { return };
    let service = site.in_process(wall_clock(), Parts::ALL, &[]);
    let mut session = service.service.store().logs().expect("a session");
    session.write(&lines(1)).expect("written");
    let ((), cost) = site.cost("/logs", || session.write(&lines(1000)).expect("written"));
    assert_eq!(cost, trips(&[("execute", 1), ("commit", 1)]));
    let ((), cost) = site.cost("/logs", || session.write(&lines(3000)).expect("written"));
    assert_eq!(cost, trips(&[("execute", 3), ("commit", 1)]));
    drop(session);
    service.stop();
}

#[test]
fn a_status_is_read_in_one_round_trip() {
    let Some(site) = Site::start() else { return };
    // One session reads, so that the first question has made it ready for the others.
    let instance = site.instance(&[("SENTINEL_WORKER_THREADS", "1")]);
    let mut client = site.client(&instance, "demo");
    client.post("/internal/start", &json!({"process_id": "import-17"})).expect(202);
    client.get("/status/import-17").expect(200);
    let ((), cost) = site.cost("/reader", || {
        for _ in 0..10 {
            client.get("/status/import-17").expect(200);
        }
    });
    assert_eq!(cost, trips(&[("execute", 10)]));
    assert_eq!(instance.terminate(), 0);
}
