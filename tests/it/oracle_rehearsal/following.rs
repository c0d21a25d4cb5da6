//! Who follows at one instance sees what any of them accepted: all of it, in order, once, wherever the stream is cut.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Site, end};
use crate::follow::{Follower, SSE, info, say, say_much};
use crate::harness::{Client, Dice, InChild, envelope, eventually, full};

/// Longer than any news takes, shorter than a wait: who is not told of news comes too late.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn who_waits_for_events_at_one_instance_gets_those_of_the_other_in_order_once() {
    let Some(site) = Site::start() else { return };
    let instances = [site.instance(&[]), site.instance(&[])];
    let count = if full() { 1_000 } else { 100 };
    let mut poster = site.client(&instances[0], "demo");
    let mut post = move |n: u64| {
        let body = envelope(u128::from(n), "s", json!({"n": n}));
        let answer = poster.event(&format!("k{n}"), &body).expect(202).json();
        assert_eq!(answer["streamSeq"], n);
    };
    post(1);
    thread::scope(|scope| {
        let posting = scope.spawn(|| {
            for n in 2..=count {
                post(n);
                // One at a time is applied, by this instance or by the other.
                thread::sleep(Duration::from_millis(10));
            }
            Instant::now()
        });
        let mut client = site.client(&instances[1], "demo");
        let mut seen = 0;
        while seen < count {
            let asked = Instant::now();
            let path = format!("/v1/streams/s/events?after={seen}&wait=30s");
            let page = client.get(&path);
            // Before the first is applied the stream is not known.
            let page =
                if page.status == 404 { json!({"events": []}) } else { page.expect(200).json() };
            for event in page["events"].as_array().expect("events") {
                seen += 1;
                assert_eq!(
                    (&event["streamSeq"], &event["payload"]["n"]),
                    (&json!(seen), &json!(seen))
                );
            }
            assert!(asked.elapsed() < SOON, "nobody told that there is more than {seen}");
        }
        let last = posting.join().expect("it is served");
        assert!(last.elapsed() < SOON, "{:?}", last.elapsed());
    });
    instances.into_iter().for_each(end);
}

#[test]
fn rows_of_any_instance_come_as_they_commit_and_a_cut_stream_goes_on_at_the_other() {
    let Some(site) = Site::start() else { return };
    let instances = [site.instance(&[]), site.instance(&[])];
    let token = site.issuer.token(json!({"tenant_id": "demo"}));
    let mut clients = [0, 1].map(|door: usize| site.client(&instances[door], "demo"));
    let mut next = 0..;
    let mut expected = 0..;
    say(&mut clients[0], "p", info(next.next().unwrap()));
    let mut place = None::<String>;
    for round in 0..4 {
        let resume = place.take().map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let api = instances[round % 2].api;
        let mut follower = Follower::open(api, &token, "/logs/p", &format!("{SSE}{resume}"));
        for turn in 0..4 {
            let began = Instant::now();
            let (id, row) = follower.event().expect("the stream goes on");
            let n: u64 = expected.next().unwrap();
            assert_eq!(row["message"], n.to_string(), "each once and in order");
            assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
            place = Some(id);
            // The next one comes by one instance, then by the other; the last of a round while nobody reads.
            if turn == 3 {
                drop(follower);
                say(&mut clients[round % 2], "p", info(next.next().unwrap()));
                break;
            }
            say(&mut clients[turn % 2], "p", info(next.next().unwrap()));
        }
    }
    instances.into_iter().for_each(end);
}

/// So far the moments of two lines lie apart that get their numbers the other way round: some looks of 250 ms, and
/// half of what the slow one waits for its number.
const APART: Duration = Duration::from_millis(750);

/// Two instances, a client of each, and who follows `p` at the second one and has its first line.
fn followed(site: &Site) -> ([InChild; 2], [Client; 2], Follower) {
    let instances = [site.instance(&[]), site.instance(&[])];
    let mut clients = [0, 1].map(|door: usize| site.client(&instances[door], "demo"));
    say(&mut clients[1], "p", info("first"));
    let token = site.issuer.token(json!({"tenant_id": "demo"}));
    let mut follower = Follower::open(instances[1].api, &token, "/logs/p", SSE);
    assert_eq!(message(&mut follower), "first");
    (instances, clients, follower)
}

/// What the next line says.
fn message(follower: &mut Follower) -> Value {
    follower.event().expect("the stream goes on").1["message"].clone()
}

#[test]
fn a_line_that_has_its_number_before_one_with_an_earlier_moment_is_not_passed_over() {
    let Some(site) = Site::start() else { return };
    let (instances, [mut slow, mut quick], mut follower) = followed(&site);
    // It takes its moment, and then its time: many looks lie between the two moments.
    let held =
        site.standin.inject("on=OCIStmtExecute module=/logs text=insert times=1 do=delay:1500");
    thread::scope(|scope| {
        scope.spawn(|| say(&mut slow, "p", info("slow")));
        eventually("it has its moment", || (site.standin.hits(&held) > 0).then_some(()));
        thread::sleep(APART);
        // For each instance it is the first such call.
        site.standin.mend(&held);
        say(&mut quick, "p", info("quick"));
    });
    let came = [message(&mut follower), message(&mut follower)];
    assert_eq!(came, ["quick", "slow"], "each comes, in the order of their numbers");
    instances.into_iter().for_each(end);
}

#[test]
fn a_line_whose_commit_takes_long_is_not_passed_over() {
    let Some(site) = Site::start() else { return };
    let (instances, [mut slow, mut quick], mut follower) = followed(&site);
    let held = site.standin.inject("on=OCITransCommit module=/logs times=1 do=delay:7000");
    thread::scope(|scope| {
        scope.spawn(|| say(&mut slow, "p", info("slow")));
        eventually("it has its number", || (site.standin.hits(&held) > 0).then_some(()));
        site.standin.mend(&held);
        say(&mut quick, "p", info("quick"));
    });
    let came = [message(&mut follower), message(&mut follower)];
    assert_eq!(came, ["slow", "quick"], "each comes, in the order of their numbers");
    instances.into_iter().for_each(end);
}

#[test]
fn without_the_right_to_see_transactions_lines_come_all_the_same_and_the_log_says_so() {
    let Some(site) = Site::start() else { return };
    let blind = site.standin.inject("on=OCIStmtExecute text=open_writes do=ora:942");
    let instance = site.instance(&[]);
    let token = site.issuer.token(json!({"tenant_id": "demo"}));
    let mut client = site.client(&instance, "demo");
    say(&mut client, "p", info("first"));
    let mut follower = Follower::open(instance.api, &token, "/logs/p", SSE);
    for expected in ["first", "second"] {
        assert_eq!(message(&mut follower), expected);
        say(&mut client, "p", info("second"));
    }
    assert!(instance.log().contains("see 000_grants_as_dba.sql"), "{}", instance.log());
    assert!(site.standin.hits(&blind) < 5, "it is not tried again at each look");
    end(instance);
}

/// Reads until `last` has come, each part at the next instance, and counts every row by its `log_id`.
fn read_in_parts(apis: &[SocketAddr], token: &str, seed: u64, last: &str) -> BTreeMap<u64, usize> {
    let (mut seen, mut dice) = (BTreeMap::new(), Dice(seed));
    let mut id = None::<String>;
    for api in apis.iter().cycle() {
        let resume = id.as_ref().map_or_else(String::new, |id| format!("Last-Event-ID: {id}\r\n"));
        let mut follower = Follower::open(*api, token, "/logs/p", &format!("{SSE}{resume}"));
        for _ in 0..=dice.roll(200) {
            let (event, row) = follower.event().expect("the stream goes on");
            *seen.entry(row["log_id"].as_u64().expect("an id")).or_default() += 1;
            id = Some(event);
            if row["message"] == last {
                return seen;
            }
        }
    }
    unreachable!("the instances come again and again")
}

#[test]
fn every_row_comes_once_whoever_writes_where_and_wherever_the_stream_is_cut() {
    let Some(site) = Site::start() else { return };
    let instances = [(); 3].map(|()| site.instance(&[]));
    let token = site.issuer.token(json!({"tenant_id": "demo"}));
    let apis: Vec<SocketAddr> = instances.iter().map(|instance: &InChild| instance.api).collect();
    say(&mut site.client(&instances[0], "demo"), "p", info("first"));
    let batches = if full() { 120 } else { 30 };
    let seen = thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|seed| {
                let (apis, token) = (&apis, &token);
                scope.spawn(move || read_in_parts(apis, token, seed, "the last one"))
            })
            .collect();
        let writers: Vec<_> = (0..)
            .zip(&instances)
            .map(|(seed, instance)| {
                let mut client = site.client(instance, "demo");
                scope.spawn(move || say_much(&mut client, seed, batches))
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().expect("it is served"));
        say(&mut site.client(&instances[1], "demo"), "p", info("the last one"));
        readers.into_iter().map(|reader| reader.join().expect("it reads")).collect::<Vec<_>>()
    });
    let mut client = site.client(&instances[2], "demo");
    let all = client.request("GET", "/logs/p", &[("Accept", "application/x-ndjson")], b"");
    let id = |line: &str| {
        serde_json::from_str::<Value>(line).expect("a row")["log_id"].as_u64().expect("an id")
    };
    let expected: BTreeMap<u64, usize> = all.text().lines().map(|line| (id(line), 1)).collect();
    assert!(expected.len() > batches * 3, "{}", expected.len());
    for seen in seen {
        let wrong = |id: &&u64| seen.get(id) != expected.get(id);
        let wrong = seen.keys().chain(expected.keys()).filter(wrong);
        let wrong: Vec<_> = wrong.map(|id| (id, seen.get(id).unwrap_or(&0))).collect();
        assert_eq!(wrong, [], "rows that came never, or more than once");
    }
    instances.into_iter().for_each(end);
}

#[test]
fn a_status_that_is_asked_for_with_a_number_waits_at_any_instance_until_that_is_applied() {
    let Some(site) = Site::start() else { return };
    let instances = [site.instance(&[]), site.instance(&[])];
    let [mut here, mut there] = [0, 1].map(|door: usize| site.client(&instances[door], "demo"));
    let fields = [("X-Sentinel-Process-Id", "p")];
    let started = here.request("POST", "/internal/start", &fields, b"").expect(202).json();
    assert_eq!(started["streamSeq"], 1);
    there.get("/status/p?seen=1&wait=30s").expect(200);

    // Whoever applies it takes its time.
    let slow = site.standin.inject("on=OCITransCommit module=/listener do=delay:2000");
    let body = json!({"current_step": "LOADING"}).to_string();
    let sent = here.request("POST", "/internal/progress", &fields, body.as_bytes()).expect(202);
    assert_eq!(sent.json()["streamSeq"], 2);
    let step = |path: &str| {
        let mut asker = site.client(&instances[1], "demo");
        asker.get(path).expect(200).json()["current_step"].clone()
    };
    assert_eq!(step("/status/p?seen=2&wait=50ms"), Value::Null, "the time is up");
    let asked = Instant::now();
    assert_eq!(step("/status/p?seen=2&wait=30s"), "LOADING");
    assert!(asked.elapsed() < SOON, "nobody told: {:?}", asked.elapsed());
    assert!(site.standin.hits(&slow) > 0);

    // Nobody has heard of it yet, so its status line waits too.
    let mut first = envelope(7, "newcomer", json!({"current_step": "LOADING"}));
    first["type"] = json!("process.progress");
    let sent = here.event("newcomer", &first).expect(202).json();
    let seen = format!("/status/newcomer?seen={}&wait=30s", sent["streamSeq"]);
    assert_eq!(step(&seen), "LOADING");
    let asked = Instant::now();
    there.get("/status/nobody?seen=1&wait=1s").expect(404);
    assert!(asked.elapsed() >= Duration::from_secs(1), "it may yet come: {:?}", asked.elapsed());
    instances.into_iter().for_each(end);
}
