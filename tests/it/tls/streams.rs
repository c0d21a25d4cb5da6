//! Rows that go on coming. This module follows a process over TLS, cuts the connection, resumes it, and stops the
//! service meanwhile.

use std::io::{BufRead, Read};

use serde_json::{Value, json};

use super::{House, Tls, request};

const TARGET: &str = "/logs/p?follow=true";

/// A live stream that is being read.
struct Follower {
    tls: Tls,
    /// Decoded, not taken yet.
    text: String,
}

impl Follower {
    fn open(house: &House, last: Option<&str>) -> Self {
        let mut tls = house.connect(Some(&house.pair));
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let fields = format!("Accept: text/event-stream\r\n{last}");
        tls.send(request("GET", TARGET, &house.token, &fields, "").as_bytes()).unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(tls.0.read_line(&mut head).unwrap() > 0, "the head is cut off: {head}");
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("text/event-stream"), "{head}");
        Self { tls, text: String::new() }
    }

    /// Takes one chunk. False: it was the last.
    fn chunk(&mut self) -> bool {
        let mut line = String::new();
        self.tls.0.read_line(&mut line).unwrap();
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.tls.0.read_exact(&mut chunk).unwrap();
        self.text.push_str(std::str::from_utf8(&chunk[..size]).unwrap());
        size > 0
    }

    /// The id and message of the next row.
    fn row(&mut self) -> (String, String) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                if event.starts_with(':') {
                    continue;
                }
                let (id, data) = event.split_once('\n').unwrap();
                let row: Value =
                    serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                let message = row["message"].as_str().unwrap().to_owned();
                return (id.strip_prefix("id: ").unwrap().to_owned(), message);
            }
            assert!(self.chunk(), "the stream has ended");
        }
    }
}

#[test]
fn rows_come_as_they_commit_and_go_on_where_a_cut_connection_ended() {
    let house = House::start("optional");
    let mut guest = house.guest();
    let mut say = |from: usize, until: usize| {
        let rows: Vec<Value> = (from..until).map(|n| json!({"message": n.to_string()})).collect();
        guest.report("log", "p", &house.token, &Value::from(rows));
    };
    say(0, 10);
    let mut follower = Follower::open(&house, None);
    let mut last = String::new();
    for n in 0..10 {
        let (id, message) = follower.row();
        assert_eq!(message, n.to_string());
        last = id;
    }
    // What commits now comes without being asked for, on the same connection.
    for n in 10..20 {
        say(n, n + 1);
        let (id, message) = follower.row();
        assert_eq!(message, n.to_string());
        last = id;
    }
    // Cut without a word, once by a reset and once by an end; rows are written meanwhile.
    for (round, cut) in [Tls::reset as fn(Tls), drop::<Tls>].into_iter().enumerate() {
        let from = 20 + round * 10;
        cut(follower.tls);
        say(from, from + 10);
        follower = Follower::open(&house, Some(&last));
        for n in from..from + 10 {
            let (id, message) = follower.row();
            assert_eq!(message, n.to_string(), "each row once, none left out");
            last = id;
        }
    }
    drop(follower);
    house.is_well(&mut guest);
    house.stop();
}

#[test]
fn a_stop_ends_a_live_stream_whole_and_says_so_as_tls_does() {
    let house = House::start("optional");
    let mut guest = house.guest();
    guest.report("log", "p", &house.token, &json!({"message": "a row"}));
    let mut follower = Follower::open(&house, None);
    assert_eq!(follower.row().1, "a row");
    house.service.signal_term();
    // Up to its last chunk, and then the end that nobody but the service can have sent.
    while follower.chunk() {}
    assert_eq!(follower.tls.rest(), (Vec::new(), true));
    assert_eq!(house.service.wait(), 0);
}
