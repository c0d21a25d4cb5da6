//! The database goes and comes back: nobody is told a lie meanwhile, and nothing needs a hand afterwards.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{ANSWERED, Site, applied_once, check, event, timed};
use crate::follow::Follower;
use crate::harness::{Client, eventually, full};

/// How many sessions were lost and opened again, as the alert `SentinelStoreReconnecting` counts them.
fn reconnects(client: &mut Client) -> u64 {
    let text = client.get("/metrics").expect(200).text();
    let found = text.lines().find_map(|line| line.strip_prefix("sentinel_store_reconnects_total "));
    found.and_then(|value| value.parse().ok()).expect("a count")
}

#[test]
fn the_database_goes_for_a_while_and_everything_comes_back_by_itself() {
    let Some(site) = Site::start() else { return };
    let instance = site.instance(&[]);
    let (mut client, mut reader) = (site.client(&instance, "demo"), site.client(&instance, "demo"));
    let mut acknowledged = 0_u128;
    while acknowledged < 20 {
        client.event(&format!("key-{acknowledged}"), &event(acknowledged)).expect(202);
        acknowledged += 1;
    }
    assert_eq!(reconnects(&mut reader), 0, "whoever was never lost is not opened again");

    // Whoever waits for news is told that there can be none, instead of that there is none.
    let path = "/v1/streams/stream-1/events?after=999&wait=2s";
    reader.get(path).expect(200);
    // Nobody looks for news as long as nobody waits for any.
    let looks = || site.standin.trips("/tail").values().sum::<u64>();
    let before = looks();
    let token = site.issuer.token(json!({"tenant_id": "demo"}));
    let waiting = Follower::open_unread(instance.api, &token, path, "");
    eventually("it waits", || (looks() > before).then_some(()));
    let gone = site.standin.inject("on=OCIServerAttach do=ora:12541");
    assert!(site.standin.kill_sessions() > 0);
    let end = Instant::now() + Duration::from_secs(if full() { 60 } else { 3 });
    let (mut refused, mut unready) = (0, 0);
    while Instant::now() < end || refused < 2 || unready < 2 {
        site.standin.kill_sessions();
        let answer = timed(|| client.event(&format!("key-{acknowledged}"), &event(acknowledged)));
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        refused += 1;
        let answer = timed(|| reader.get("/v1/streams/stream-1/events"));
        assert_eq!(answer.status, 503, "{}", answer.text());
        let ready = timed(|| reader.get("/ready")).expect(503);
        assert!(check(&ready, "store.read").1.contains("ORA-12541"), "{}", ready.text());
        unready += usize::from(check(&ready, "store.write").0 == "failed");
        for line in ready.json()["checks"].as_array().expect("checks") {
            let name = line["name"].as_str().unwrap_or_default();
            assert!(!name.starts_with("thread.") || line["state"] == "ok", "{line}");
        }
        timed(|| reader.get("/health")).expect(200);
    }
    waiting.reply().expect(503);
    // More than there are threads to answer them: nobody waits until it is the turn of all before.
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut reader = site.client(&instance, "demo");
                for _ in 0..3 {
                    let answer = timed(|| reader.get("/status/p"));
                    assert_eq!(answer.status, 503, "{}", answer.text());
                }
            });
        }
    });

    site.standin.mend(&gone);
    let back = Instant::now();
    eventually("events are taken again", || {
        let answer = client.event(&format!("key-{acknowledged}"), &event(acknowledged));
        assert!(matches!(answer.status, 202 | 503), "{}", answer.text());
        (answer.status == 202).then_some(())
    });
    assert!(back.elapsed() < Duration::from_secs(15), "it took {:?}", back.elapsed());
    acknowledged += 1;
    eventually("it is ready again", || {
        let ready = reader.get("/ready");
        (ready.status == 200).then_some(())
    });
    applied_once(&site, usize::try_from(acknowledged).expect("few"));
    // Intake, a listener and a reader at least.
    assert!(reconnects(&mut reader) >= 3, "{}", reconnects(&mut reader));
    assert_eq!(instance.terminate(), 0);
}

/// A wrong password that is tried tightly locks the account, so one attempt a minute is made for each session.
#[test]
fn a_password_that_expires_is_told_and_not_tried_tightly() {
    let Some(site) = Site::start() else { return };
    let instance = site.instance(&[]);
    let (mut client, mut reader) = (site.client(&instance, "demo"), site.client(&instance, "demo"));
    client.event("key-1", &event(1)).expect(202);

    let expired = site.standin.inject("on=OCISessionBegin do=ora:28001");
    site.standin.kill_sessions();
    let begun = Instant::now();
    eventually("it is told", || {
        let answer = timed(|| client.event("key-2", &event(2)));
        assert_eq!(answer.status, 503, "{}", answer.text());
        let ready = timed(|| reader.get("/ready"));
        let (state, detail) = check(&ready, "store.read");
        (ready.status == 503 && state == "failed" && detail.contains("ORA-28001"))
            .then(|| assert!(detail.contains("once a minute"), "{detail}"))
    });
    // Once a pause of a minute has begun, everybody is answered at once.
    for n in 0..20 {
        assert_eq!(client.event(&format!("key-{n}"), &event(n)).status, 503);
        assert_eq!(reader.get("/status/p").status, 503);
    }
    // One for each session of each thread: 4 workers and the loop, 2 listeners, log writer, intake, keeper, reaper.
    let attempts = site.standin.hits(&expired);
    let rounds = usize::try_from(begun.elapsed().as_secs() / 60).expect("few") + 1;
    assert!(attempts <= 12 * rounds, "{attempts} attempts in {:?}", begun.elapsed());
    assert!(begun.elapsed() < 4 * ANSWERED, "{:?}", begun.elapsed());
    // A stop does not wait for the pause either.
    assert_eq!(instance.terminate(), 0);
}

#[test]
fn a_slow_network_slows_everybody_down_and_loses_nothing() {
    let Some(site) = Site::start() else { return };
    let instance = site.instance(&[]);
    let mut client = site.client(&instance, "demo");
    let slow = site.standin.inject("on=* do=delay:50");
    for id in 0..5 {
        timed(|| client.event(&format!("key-{id}"), &event(id))).expect(202);
    }
    assert!(site.standin.hits(&slow) > 25);
    applied_once(&site, 5);
    site.standin.mend(&slow);
    assert_eq!(instance.terminate(), 0);
}
