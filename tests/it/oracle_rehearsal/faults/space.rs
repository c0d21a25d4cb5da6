//! A tablespace is full for ten minutes of the database's clock.

use std::time::Duration;

use super::{Site, applied_once, check, count, event, post_lines};
use crate::harness::{eventually, full};

/// Lines that PL/SQL wrote while nobody could store them.
const LINES: usize = 20;

/// The tablespace of events and lines is full for every row while this table has one. It refuses one event for good.
const TABLESPACE: &str = "
    CREATE TABLE standin.full_now (yes integer);
    CREATE FUNCTION sentinel.room() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF EXISTS (SELECT 1 FROM standin.full_now) THEN
        RAISE EXCEPTION 'no room' USING ERRCODE = '53100';
      END IF;
      RETURN NEW;
    END $$;
    CREATE FUNCTION sentinel.taste() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.stream_key = 'refused' THEN
        RAISE EXCEPTION 'refused' USING ERRCODE = '23514';
      END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER room BEFORE INSERT ON sentinel.events FOR EACH ROW EXECUTE FUNCTION sentinel.room();
    CREATE TRIGGER room BEFORE INSERT ON sentinel.process_logs FOR EACH ROW EXECUTE FUNCTION sentinel.room();
    CREATE TRIGGER room BEFORE INSERT ON sentinel.dead_letter FOR EACH ROW EXECUTE FUNCTION sentinel.room();
    CREATE TRIGGER taste BEFORE INSERT ON sentinel.events FOR EACH ROW EXECUTE FUNCTION sentinel.taste();
    INSERT INTO standin.full_now VALUES (1)";

#[test]
fn ten_minutes_without_space_lose_nothing_and_set_only_poison_aside() {
    let Some(site) = Site::start() else { return };
    let good: usize = if full() { 5000 } else { 500 };
    site.standin.sql(TABLESPACE);
    let first = site.instance(&[]);
    let mut client = site.client(&first, "demo");

    // Log lines and two messages that nobody can read come first, so that they are taken with others.
    site.standin.sql(&format!(
        "INSERT INTO standin.message (event_id, event_type, process_id, tenant_id, priority, payload) \
         SELECT 'log-' || n, 'LOG', 'p', 'demo', 5, \
           '{{\"data\":{{\"level\":\"INFO\",\"message\":\"line ' || n || '\"}}}}' FROM generate_series(1, {LINES}) n; \
         INSERT INTO standin.message (event_id, event_type, process_id, tenant_id, priority, payload) \
         VALUES ('bad-1', 'ENVELOPE', 'p', 'demo', 5, 'no JSON'), \
           ('bad-2', 'PROGRESS', 'p', 'demo', 5, '{{\"data\":{{}}}}')"
    ));
    let mut posted = 0_u128;
    while posted < good as u128 {
        let next = (posted + 500).min(good as u128);
        post_lines(&mut client, posted..next).expect(202);
        posted = next;
    }
    let mut refused = event(1 << 32);
    refused["streamKey"] = "refused".into();
    client.event("refused", &refused).expect(202);

    for minute in 0..5 {
        eventually("it is told", || {
            let ready = client.get("/ready");
            let told = (0..2).any(|n| {
                check(&ready, &format!("store.session.listener-{n}")).1.contains("ORA-01653")
            });
            told.then_some(())
        });
        site.standin.forward(Duration::from_secs(60));
        if minute == 2 {
            site.standin.kill_sessions();
        }
    }
    // The other five: statements as a whole, and everybody's.
    let fault = site.standin.inject("on=OCIStmtExecute text=insert do=ora:1653");
    site.standin.sql("DELETE FROM standin.full_now");
    for minute in 0..5 {
        let before = site.standin.hits(&fault);
        eventually("they try again", || (site.standin.hits(&fault) > before).then_some(()));
        site.standin.forward(Duration::from_secs(60));
        if minute == 1 {
            let answer = eventually("a post is turned away for want of space", || {
                let answer = client.event("late", &event(2 << 32));
                assert_eq!(answer.status, 503, "{}", answer.text());
                answer.text().contains("out of space").then_some(answer)
            });
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            site.standin.kill_sessions();
        }
    }
    assert_eq!(count(&site, "SELECT count(*) FROM sentinel.events"), 0);
    assert_eq!(count(&site, "SELECT count(*) FROM sentinel.dead_letter"), 0);
    site.standin.mend(&fault);

    eventually("a post is taken again", || {
        (client.event("late", &event(2 << 32)).status == 202).then_some(())
    });
    // What was tried too often waits in the exception queue. A listener looks there once a minute, and when it starts.
    site.standin.forward(Duration::from_secs(60));
    let second = site.instance(&[]);
    eventually("the queue is empty", || {
        (count(&site, "SELECT count(*) FROM standin.message") == 0).then_some(())
    });
    applied_once(&site, good + 1);
    let letters = "SELECT string_agg(reason || ' ' || tenant_id, ', ' ORDER BY reason) FROM sentinel.dead_letter";
    assert_eq!(
        site.standin.sql(letters),
        "invalid_payload demo, undecodable #none, undecodable #none"
    );
    assert_eq!(count(&site, "SELECT count(*) FROM sentinel.process_logs"), LINES);
    assert_eq!((first.terminate(), second.terminate()), (0, 0));
}

#[test]
fn what_was_tried_too_often_is_applied_from_the_exception_queue() {
    let Some(site) = Site::start() else { return };
    // As the queue leaves them after four rolled-back deliveries.
    site.standin.sql(
        "BEGIN; \
         INSERT INTO standin.message (event_id, event_type, process_id, tenant_id, priority, payload) \
         SELECT 'E' || n, 'HEARTBEAT', 'nightly', 'demo', 5, '{\"streamSeq\":' || n || ',\"data\":{}}' \
         FROM generate_series(1, 250) n; \
         INSERT INTO standin.message (event_id, event_type, process_id, tenant_id, priority, payload) \
         VALUES ('bad', 'HEARTBEAT', 'nightly', 'demo', 5, 'no JSON'); \
         INSERT INTO standin.attempt (place, attempts, ready_at) SELECT place, 4, enq_time FROM standin.message; \
         COMMIT",
    );
    let instance = site.instance(&[]);
    // More than one look takes: the next ones come at once.
    applied_once(&site, 250);
    eventually("the bad one is set aside", || {
        (count(&site, "SELECT count(*) FROM sentinel.dead_letter") == 1).then_some(())
    });
    assert_eq!(count(&site, "SELECT count(*) FROM standin.message"), 0);
    let mut client = site.client(&instance, "demo");
    assert_eq!(client.get("/status/nightly").expect(200).json()["status"], "ACTIVE");
    assert_eq!(instance.terminate(), 0);
}
