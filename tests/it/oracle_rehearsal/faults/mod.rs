//! What goes wrong with a database, on command, and what a user of the service sees of it: nothing acknowledged is
//! lost, nothing takes effect twice, and everything comes back by itself.

mod answers;
mod killed;
mod outage;
mod poison;
mod refusals;
mod space;
mod stop;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Site;
use crate::harness::{Client, Response, envelope, eventually};

/// A request is answered in this time, whatever the database does: five seconds for a session, more for the machine.
const ANSWERED: Duration = Duration::from_secs(12);

/// Asks, and fails where the answer takes longer than anybody waits.
fn timed(ask: impl FnOnce() -> Response) -> Response {
    let begun = Instant::now();
    let answer = ask();
    assert!(begun.elapsed() < ANSWERED, "after {:?}: {}", begun.elapsed(), answer.text());
    answer
}

/// The detail of one line of `/ready`, with its state.
fn check(ready: &Response, name: &str) -> (String, String) {
    let checks = ready.json()["checks"].as_array().cloned().unwrap_or_default();
    let found = checks.iter().find(|check| check["name"] == name);
    let word = |key: &str| found.and_then(|check| check[key].as_str()).unwrap_or_default();
    (word("state").to_owned(), word("detail").to_owned())
}

/// Posts events `ids` to streams of their own tens, as lines.
fn post_lines(client: &mut Client, ids: std::ops::Range<u128>) -> Response {
    let lines: Vec<String> = ids.map(|id| event(id).to_string()).collect();
    let fields = [("Content-Type", "application/x-ndjson")];
    client.request("POST", "/v1/events", &fields, lines.join("\n").as_bytes())
}

fn event(id: u128) -> Value {
    envelope(id, &format!("stream-{}", id % 10), json!({"n": id.to_string()}))
}

/// How many rows a question of the stand-in's own SQL counts.
fn count(site: &Site, sql: &str) -> usize {
    site.standin.sql(sql).parse().expect("a count")
}

/// Waits until so many events are applied, and makes sure that each is there once.
fn applied_once(site: &Site, events: usize) {
    eventually("all events are applied", || {
        (count(site, "SELECT count(*) FROM sentinel.events") >= events).then_some(())
    });
    let distinct = "SELECT count(*) || ' ' || count(DISTINCT (tenant_id, source, event_id)) FROM sentinel.events";
    assert_eq!(site.standin.sql(distinct), format!("{events} {events}"));
}
