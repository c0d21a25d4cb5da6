//! One tenant that takes all it can get leaves room for the others: whoever comes later is not kept waiting by it.

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::follow::{Follower, info, say};
use crate::harness::{Client, InChild, PATIENCE, envelope, eventually, token};
use crate::pressure::{BODY_BYTES, Half, in_flight, large_batch};

/// What the bodies may hold together: four of those that are sent here.
const BUDGET: usize = 4 * BODY_BYTES;
const NDJSON: [(&str, &str); 1] = [("Content-Type", "application/x-ndjson")];

/// How many requests found that their tenant has its share, as it is scraped.
fn held_back(client: &mut Client, pool: &str) -> u64 {
    let text = client.get("/metrics").expect(200).text();
    let series = format!("sentinel_held_back_total{{pool=\"{pool}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

#[test]
fn slow_batches_of_one_tenant_leave_room_for_those_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let service =
        InChild::start(folder.path(), &[("SENTINEL_INFLIGHT_BYTES", &BUDGET.to_string())]);
    let of = |tenant: &str| token(folder.path(), tenant, &["sentinel:read", "sentinel:write"]);
    let (greedy, other) = (of("greedy"), of("other"));
    let (mut rude, mut client) =
        (Client::new(service.api, &greedy), Client::new(service.api, &other));
    // Over as many connections as it likes, and with another token for each.
    let halves: Vec<Half> = (0..2)
        .map(|sender| Half::send(service.api, &of("greedy"), &large_batch(sender, 0).1))
        .collect();
    eventually("it holds half of the room", || {
        (in_flight(&mut client, "body") == 2 * BODY_BYTES as u64).then_some(())
    });
    let (_, third) = large_batch(2, 0);
    let refused = rude.request("POST", "/v1/events", &NDJSON, &third).expect(503);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.json()["type"], "/problems/unavailable");
    assert!(refused.text().contains("your tenant"), "{}", refused.text());
    // Without a token it gets nothing above that half, either.
    let mut stranger = TcpStream::connect_timeout(&service.api, PATIENCE).unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    stranger.write_all(head.as_bytes()).unwrap();
    let answer = crate::harness::read_response(&mut std::io::BufReader::new(stranger), false);
    assert_eq!(answer.unwrap().status, 503);
    // The others go on, with batches that come slowly as well.
    let (_, body) = large_batch(3, 0);
    let slow = Half::send(service.api, &other, &body);
    eventually("it is on its way, too", || {
        (in_flight(&mut client, "body") == 3 * BODY_BYTES as u64).then_some(())
    });
    slow.finish().expect(202);
    client.request("POST", "/v1/events", &NDJSON, &large_batch(4, 0).1).expect(202);
    assert_eq!(held_back(&mut client, "body"), 1);
    let line = "tenant greedy holds 6000000 of the";
    eventually("the log says who it is", || service.log().contains(line).then_some(()));
    // What it holds comes to its end, and then there is room for more.
    for half in halves {
        half.finish().expect(202);
    }
    rude.request("POST", "/v1/events", &NDJSON, &third).expect(202);
    assert_eq!(service.terminate(), 0);
}

#[test]
fn events_of_one_tenant_that_wait_for_their_commit_leave_places_for_those_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[("SENTINEL_QUEUE_CAPACITY", "100")]);
    let of = |tenant: &str| token(folder.path(), tenant, &["sentinel:write"]);
    let (greedy, other) = (of("greedy"), of("other"));
    let mut client = Client::new(service.api, &other);
    client.event("before", &envelope(1, "s", json!({}))).expect(202);
    let batch = |from: u128, count: u128| {
        let lines: Vec<String> =
            (from..from + count).map(|id| envelope(id, "s", json!({})).to_string()).collect();
        lines.join("\n")
    };
    // Whoever holds the write lock of the log holds up every commit.
    let holder = rusqlite::Connection::open(folder.path().join("log.db")).unwrap();
    holder.busy_timeout(PATIENCE).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    std::thread::scope(|scope| {
        let api = service.api;
        let post = |token: &str, body: String| {
            let mut client = Client::new(api, token);
            scope.spawn(move || client.request("POST", "/v1/events", &NDJSON, body.as_bytes()))
        };
        let waiting = [post(&greedy, batch(100, 60)), post(&greedy, batch(200, 40))];
        eventually("both wait", || (depth(&mut client) == 100).then_some(()));
        let mut rude = Client::new(api, &greedy);
        let refused = rude.request("POST", "/v1/events", &NDJSON, batch(300, 1).as_bytes());
        let refused = refused.expect(503);
        assert!(refused.header("retry-after").is_some());
        assert!(refused.text().contains("your tenant"), "{}", refused.text());
        let fair = post(&other, batch(400, 40));
        eventually("that of another waits as well", || (depth(&mut client) == 140).then_some(()));
        assert_eq!(held_back(&mut client, "event"), 1);
        holder.execute_batch("ROLLBACK").unwrap();
        for posted in waiting.into_iter().chain([fair]) {
            posted.join().unwrap().expect(202);
        }
    });
    eventually("all places are given back", || (depth(&mut client) == 0).then_some(()));
    assert_eq!(service.terminate(), 0);
}

#[test]
fn events_of_one_tenant_that_wait_to_be_applied_leave_room_for_those_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let of = |tenant: &str| token(folder.path(), tenant, &["sentinel:read", "sentinel:write"]);
    let (mut greedy, mut client) =
        (Client::new(service.api, &of("greedy")), Client::new(service.api, &of("other")));
    client.event("before", &envelope(1, "s", json!({}))).expect(202);
    // Whoever holds the write lock of the projection lets nothing be applied.
    let holder = rusqlite::Connection::open(folder.path().join("events.db")).unwrap();
    holder.busy_timeout(PATIENCE).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let filler = json!({"filler": "x".repeat(900_000)});
    let mut batch = |round: u128| {
        let line = |id: u128| envelope(round << 8 | id, "s", filler.clone()).to_string();
        let lines: Vec<String> = (1..=4).map(line).collect();
        greedy.request("POST", "/v1/events", &NDJSON, lines.join("\n").as_bytes())
    };
    let mut rounds = 0;
    let refused = loop {
        rounds += 1;
        assert!(rounds < 64, "it is never held back");
        let response = batch(rounds);
        if response.status != 202 {
            break response.expect(503);
        }
    };
    assert!(rounds > 2, "alone it gets a good part");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(refused.json()["type"], "/problems/unavailable");
    assert!(refused.text().contains("your tenant"), "{}", refused.text());
    assert_eq!(held_back(&mut client, "backlog"), 1);
    for id in 2..12 {
        client.event(&format!("k{id}"), &envelope(id, "s", json!({}))).expect(202);
    }
    batch(1).expect(202);
    assert_eq!(held_back(&mut client, "backlog"), 1, "a repeat needs no room");
    let line = "tenant greedy holds ";
    eventually("the log says who it is", || service.log().contains(line).then_some(()));
    holder.execute_batch("ROLLBACK").unwrap();
    eventually("there is room again", || (batch(rounds).status == 202).then_some(()));
    assert_eq!(service.terminate(), 0);
}

#[test]
fn waits_and_followers_of_one_tenant_leave_connections_for_those_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[("SENTINEL_MAX_CONNECTIONS", "16")]);
    let of = |tenant: &str| token(folder.path(), tenant, &["sentinel:read", "sentinel:write"]);
    let (greedy, other) = (of("greedy"), of("other"));
    let (mut rude, mut client) =
        (Client::new(service.api, &greedy), Client::new(service.api, &other));
    for client in [&mut rude, &mut client] {
        client.event("k1", &envelope(1, "s", json!({}))).expect(202);
        say(client, "p", info("a line"));
    }
    eventually("it is applied", || {
        (rude.get("/v1/streams/s/events?after=0").json()["after"] == 1).then_some(())
    });
    let follow = |token: &str| {
        Follower::open(service.api, token, "/logs/p", "Accept: text/event-stream\r\n")
    };
    let mut held: Vec<Follower> = (0..8).map(|_| follow(&of("greedy"))).collect();
    let refused = rude.get("/v1/streams/s/events?after=1&wait=1s").expect(503);
    assert!(refused.header("retry-after").is_some());
    assert!(refused.text().contains("your tenant"), "{}", refused.text());
    assert!(held_back(&mut client, "wait") > 0);
    // What needs no wait has its answer, whatever it says of one.
    rude.get("/v1/streams/s/events?after=0&wait=60s").expect(200);
    let mut others = follow(&other);
    assert!(others.event().is_some());
    say(&mut client, "p", info("another"));
    assert!(others.event().is_some(), "it hears what comes");
    // With one that another holds, fewer are left.
    held.truncate(6);
    eventually("there is a place again", || {
        (rude.get("/v1/streams/s/events?after=1&wait=1ms").status == 200).then_some(())
    });
    drop((held, others));
    assert_eq!(service.terminate(), 0);
}

/// How many events wait for their commit.
fn depth(client: &mut Client) -> u64 {
    let text = client.get("/metrics").expect(200).text();
    let series = "sentinel_channel_depth{channel=\"events\"} ";
    let value = text.lines().find_map(|line| line.strip_prefix(series));
    value.expect("the depth is scraped").parse().unwrap()
}
