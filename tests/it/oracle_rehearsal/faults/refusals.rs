//! The database answers, and says no: a stopped queue, a missing partition, a call that hangs.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Site, applied_once, check, event, timed};
use crate::harness::{eventually, full};

#[test]
fn a_stopped_queue_is_told_and_everything_goes_on_when_it_is_started_again() {
    let Some(site) = Site::start() else { return };
    let instance = site.instance(&[]);
    let (mut client, mut reader) = (site.client(&instance, "demo"), site.client(&instance, "demo"));
    client.event("key-1", &event(1)).expect(202);

    site.standin.queue(false, false);
    let ready = eventually("it is told", || {
        let answer = timed(|| client.event("key-2", &event(2)));
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        let ready = reader.get("/ready");
        (check(&ready, "store.queue").1.matches("STOPPED").count() == 2).then_some(ready)
    });
    assert_eq!(ready.status, 503);
    let (state, detail) = check(&ready, "store.write");
    assert!(state == "failed" && detail.contains("queue"), "{detail}");
    // What is known is still answered.
    reader.get("/processes").expect(200);
    let answer = client.event("key-2", &event(2)).expect(503);
    assert!(answer.text().contains("queue"), "{}", answer.text());

    site.standin.queue(true, true);
    eventually("events are taken again", || {
        (client.event("key-2", &event(2)).status == 202).then_some(())
    });
    applied_once(&site, 2);
    assert_eq!(instance.terminate(), 0);
}

#[test]
fn a_missing_partition_holds_up_log_rows_and_nothing_else() {
    let Some(site) = Site::start() else { return };
    let instance = site.instance(&[]);
    let mut client = site.client(&instance, "demo");
    let line = json!({"process_id": "p", "level": "INFO", "message": "hello"});
    let missing = site.standin.inject("on=OCIStmtExecute text=process_logs do=ora:14400");
    // The log writer tries for some seconds before it answers.
    let answer = client.post("/internal/log", &line).expect(503);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(site.standin.hits(&missing) > 0);
    let ready = client.get("/ready").expect(200);
    let (state, detail) = check(&ready, "store.session.logs-0");
    assert!(state == "degraded" && detail.contains("ORA-14400"), "{}", ready.text());
    assert_eq!(check(&ready, "thread.logs-0").1, "runs");
    timed(|| client.event("key-1", &event(1))).expect(202);
    applied_once(&site, 1);

    site.standin.mend(&missing);
    eventually("log rows are taken again", || {
        (client.post("/internal/log", &line).status == 202).then_some(())
    });
    assert_eq!(site.standin.sql("SELECT count(*) FROM sentinel.process_logs"), "1");
    assert_eq!(instance.terminate(), 0);
}

/// The longest that one call of the service may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn a_call_that_hangs_holds_up_its_own_thread_only_and_is_given_up_in_time() {
    let Some(site) = Site::start() else { return };
    let instance = site.instance(&[]);
    let mut client = site.client(&instance, "demo");
    let begun = Instant::now();
    let hung =
        site.standin.inject("on=OCIStmtExecute module=/listener text=insert times=1 do=hang");
    client.event("key-1", &event(1)).expect(202);
    eventually("a listener hangs", || (site.standin.hits(&hung) > 0).then_some(()));
    for id in 2..10 {
        timed(|| client.event(&format!("key-{id}"), &event(id))).expect(202);
    }
    client.get("/ready").expect(200);
    client.get("/processes").expect(200);
    if full() {
        applied_once(&site, 9);
        assert!(begun.elapsed() >= CALL_TIMEOUT, "it was the call timeout");
    }
    site.standin.mend(&hung);
    applied_once(&site, 9);
    assert_eq!(instance.terminate(), 0);
}
