//! Who sends slowly, in drips or not at all, and who never reads: each is cut off at its own absolute deadline, and
//! nobody else waits for it.

use std::time::Duration;

use sentinel::http::limits::Limits;
use sentinel::mailbox::Answer;

use crate::front::{PIECE_BYTES, Peer, SOON, Server};
use crate::harness::eventually;

/// A head whose body never comes whole, to a loop and to a worker.
fn head(target: &str, length: usize) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

/// Everybody else is served at once, on the loop and on the workers.
fn others_are_served(server: &Server) {
    let mut brisk = server.peer();
    for _ in 0..20 {
        assert_eq!(brisk.get("/").status, 200);
        assert_eq!(brisk.get("/work/a").status, 200);
    }
}

#[test]
fn a_client_that_sends_byte_by_byte_is_understood() {
    let server = Server::roomy(1, Limits::default());
    for target in ["/echo", "/work/echo"] {
        let mut peer = server.peer();
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x\r\nllo\r\n0\r\n\r\n"
        );
        for _ in 0..2 {
            for byte in request.as_bytes() {
                peer.send([*byte]);
            }
            assert_eq!(peer.read().text(), "hello");
        }
    }
}

#[test]
fn slow_heads_and_slow_bodies_are_given_up_and_cost_nobody_else_anything() {
    let limits = Limits {
        head_time: Duration::from_millis(300),
        body_time: Duration::from_millis(600),
        idle_time: Duration::from_millis(900),
        ..Limits::default()
    };
    let server = Server::roomy(1, limits);
    let peers = |count: usize| -> Vec<Peer> { (0..count).map(|_| server.peer()).collect() };
    let (mut slow_heads, mut slow_bodies, mut never) = (peers(50), peers(50), peers(10));
    let mut idle = server.peer();
    assert_eq!(idle.get("/").status, 200);
    slow_heads.iter_mut().for_each(|peer| peer.send("GET / HT"));
    for (number, peer) in slow_bodies.iter_mut().enumerate() {
        // More stalled bodies than there are workers: a body is awaited by nobody but its connection.
        peer.send(head(if number % 2 == 0 { "/echo" } else { "/work/echo" }, 5000) + "h");
    }
    others_are_served(&server);
    for peer in slow_heads.iter_mut().chain(&mut slow_bodies) {
        assert_eq!(peer.read().status, 408);
        assert_eq!(peer.rest(), b"");
    }
    assert_eq!(idle.rest(), b"", "an idle connection is closed without a word");
    for peer in &mut never {
        assert_eq!(peer.rest(), b"", "who never said anything hears nothing");
    }
    eventually("every place is given back", || (server.handle.connections() == 0).then_some(()));
}

#[test]
fn a_drip_moves_no_deadline() {
    let limits = Limits {
        head_time: Duration::from_millis(300),
        body_time: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = Server::roomy(1, limits);
    let mut heads: Vec<Peer> = (0..100).map(|_| server.peer()).collect();
    let mut bodies: Vec<Peer> = (0..100).map(|_| server.peer()).collect();
    heads.iter_mut().for_each(|peer| peer.send("GET / HTTP/1.1\r\nX: "));
    bodies.iter_mut().for_each(|peer| peer.send(head("/echo", 1 << 20)));
    // One byte after another, as long as anybody is still there to take them.
    let dripping = std::time::Instant::now();
    while server.handle.connections() > 0 {
        for peer in heads.iter_mut().chain(&mut bodies) {
            peer.try_send("y");
        }
        assert!(dripping.elapsed() < SOON, "a drip keeps {} places", server.handle.connections());
    }
    others_are_served(&server);
}

#[test]
fn a_body_that_waits_to_be_asked_for_and_never_comes_is_given_up() {
    let limits = Limits { body_time: Duration::from_millis(200), ..Limits::default() };
    let server = Server::roomy(1, limits);
    let mut peers: Vec<Peer> = (0..8).map(|_| server.peer()).collect();
    for peer in &mut peers {
        peer.send("POST /work/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(peer.read_head().0, 100);
    }
    others_are_served(&server);
    for peer in &mut peers {
        assert_eq!(peer.read().status, 408);
    }
}

#[test]
fn who_does_not_read_is_cut_off_and_holds_up_nobody() {
    let limits = Limits { write_time: Duration::from_millis(300), ..Limits::default() };
    let server = Server::roomy(1, limits);
    // Forty replies of 8 MiB each; a stream without end in sight; a stream with requests behind it.
    let mut greedy = server.peer();
    greedy.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(40));
    let mut streaming = server.peer();
    streaming.send("GET /stream?400 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut both = server.peer();
    both.send("GET /work/stream?400 HTTP/1.1\r\nHost: a\r\n\r\n");
    both.send("GET /work/a HTTP/1.1\r\nHost: a\r\n\r\n".repeat(8));
    others_are_served(&server);
    let mut brisk = server.peer();
    // The connections are counted out before anything of theirs is read.
    eventually("who does not read is gone", || {
        assert_eq!(brisk.get("/work/a").status, 200);
        (server.handle.connections() == 1).then_some(())
    });
    assert!(greedy.rest().len() < 8 << 20);
    assert!(streaming.rest().len() < 400 * PIECE_BYTES);
    assert!(both.rest().len() < 400 * PIECE_BYTES);
}

#[test]
fn a_thousand_requests_at_once_are_answered_in_their_order_when_they_are_read() {
    let server = Server::roomy(1, Limits::default());
    let mut peer = server.peer();
    let requests: String =
        (0..1000).map(|n| format!("GET /work/{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    peer.send(requests);
    others_are_served(&server);
    for n in 0..1000 {
        assert_eq!(peer.read().text(), format!("/work/{n}?"));
    }
}

#[test]
fn requests_behind_one_that_waits_hold_no_worker() {
    let server = Server::roomy(1, Limits::default());
    let mut peers: Vec<Peer> = (0..8).map(|_| server.peer()).collect();
    for peer in &mut peers {
        peer.send("GET /wait?1 HTTP/1.1\r\nHost: a\r\n\r\n");
        peer.send("GET /work/a HTTP/1.1\r\nHost: a\r\n\r\n".repeat(12));
    }
    let answers: Vec<_> = (0..8).map(|_| server.waiting.recv_timeout(SOON).unwrap()).collect();
    others_are_served(&server);
    answers.into_iter().for_each(|answer| answer.put(Answer::Logged(7)).wake());
    for peer in &mut peers {
        assert_eq!(peer.read().text(), "1 7");
        for _ in 0..12 {
            assert_eq!(peer.read().text(), "/work/a?");
        }
    }
}
