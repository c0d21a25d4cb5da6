//! A commit that went through and whose answer was lost: the client asks again with the same names, and gets what the
//! first answer would have said.

use serde_json::json;

use super::{Site, applied_once, count, event};
use crate::harness::{Client, Response, eventually};

/// The next commit of intake loses its answer.
const LOST: &str = "on=OCITransCommit module=/intake times=1 do=lose-after";

/// Sends what `send` sends while the answer of the commit is lost, and again.
fn twice(site: &Site, client: &mut Client, send: impl Fn(&mut Client) -> Response) -> Response {
    let fault = site.standin.inject(LOST);
    let first = send(client).expect(503);
    assert!(first.header("retry-after").is_some(), "{first:?}");
    assert_eq!(site.standin.hits(&fault), 1, "{}", first.text());
    site.standin.mend(&fault);
    // At once: one lost session is no reason to turn anybody away.
    let second = send(client);
    assert!(matches!(second.status, 202 | 207), "{}: {}", second.status, second.text());
    second
}

#[test]
fn an_event_a_batch_and_a_start_whose_answer_was_lost_take_effect_once() {
    let Some(site) = Site::start() else { return };
    let instance = site.instance(&[]);
    let mut client = site.client(&instance, "demo");

    let single = twice(&site, &mut client, |client| client.event("key-1", &event(11)));
    assert_eq!(single.header("idempotency-replayed"), Some("true"));
    assert_eq!(single.json()["streamSeq"], 1);

    let batch = twice(&site, &mut client, |client| super::post_lines(client, 20..25));
    let lines: Vec<serde_json::Value> =
        batch.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 5, "{}", batch.text());
    assert!(
        lines.iter().all(|line| line["status"] == 202 && line["replayed"] == true),
        "{lines:?}"
    );

    let start = twice(&site, &mut client, |client| {
        let body = json!({"process_id": "import-17"}).to_string();
        let fields = [("Content-Type", "application/json"), ("Idempotency-Key", "start-1")];
        client.request("POST", "/internal/start", &fields, body.as_bytes())
    });
    let run = start.json()["run_id"].as_str().expect("a run").to_owned();

    applied_once(&site, 7);
    let status = eventually("the run is applied", || {
        let status = client.get("/status/import-17").expect(200).json();
        (status["run_id"] == run.as_str()).then_some(status)
    });
    assert_eq!(status["status"], "RUNNING", "{status}");
    let runs = "SELECT count(*) FROM sentinel.process_live_status WHERE process_id = 'import-17' AND run_no = 1";
    assert_eq!(count(&site, runs), 1, "one run");
    assert_eq!(count(&site, "SELECT count(*) FROM sentinel.dead_letter"), 0);
    assert_eq!(instance.terminate(), 0);
}
