//! How connections end: half-closed, reset, at every byte of a request and in the middle of its answer. Every place is
//! given back, what was asked before the end is answered, and nobody else notices.

use sentinel::http::limits::Limits;
use sentinel::mailbox::Answer;

use crate::front::{Peer, SOON, Server};
use crate::harness::eventually;

const REQUEST: &str = "POST /work/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n";

fn every_place_is_given_back(server: &Server) {
    let mut brisk = server.peer();
    eventually("every place is given back", || {
        assert_eq!(brisk.get("/work/a").status, 200);
        (server.handle.connections() == 1).then_some(())
    });
}

#[test]
fn a_client_that_closes_its_side_gets_its_last_reply() {
    let server = Server::roomy(1, Limits::default());
    for target in ["/a", "/work/a"] {
        let mut peer = server.peer();
        peer.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        peer.half_close();
        assert_eq!(peer.read().status, 200);
        assert_eq!(peer.rest(), b"");
    }
    let mut peer = server.peer();
    peer.send("GET /wait?1 HTTP/1.1\r\nHost: a\r\n\r\n");
    peer.half_close();
    server.waiting.recv_timeout(SOON).unwrap().put(Answer::Logged(7)).wake();
    assert_eq!(peer.read().text(), "1 7");
    assert_eq!(peer.rest(), b"");
}

#[test]
fn a_side_that_is_closed_at_any_byte_of_a_request_ends_the_connection_at_once() {
    let server = Server::roomy(1, Limits::default());
    for at in 0..REQUEST.len() {
        let mut peer = server.peer();
        peer.send(&REQUEST[..at]);
        peer.half_close();
        assert_eq!(peer.rest(), b"", "after {at} bytes");
    }
    let mut peer = server.peer();
    peer.send(REQUEST);
    peer.half_close();
    assert_eq!(peer.read().text(), "hello");
    assert_eq!(peer.rest(), b"");
    every_place_is_given_back(&server);
}

#[test]
fn a_reset_at_any_byte_of_a_request_costs_nobody_anything() {
    let server = Server::roomy(1, Limits::default());
    let mut neighbour = server.peer();
    for at in 0..=REQUEST.len() {
        let mut peer = server.peer();
        peer.send(&REQUEST[..at]);
        peer.reset();
        assert_eq!(neighbour.get("/work/a").status, 200, "after {at} bytes");
    }
    drop(neighbour);
    every_place_is_given_back(&server);
}

#[test]
fn a_reset_while_the_answer_is_made_or_read_frees_the_place_once_it_is_made() {
    let server = Server::roomy(1, Limits::default());
    // In the mailbox, on a worker, in the middle of a large reply, in the middle of a stream.
    let mut waiting = server.peer();
    waiting.send("GET /wait?1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = server.waiting.recv_timeout(SOON).unwrap();
    let mut held = server.peer();
    held.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    server.held.recv_timeout(SOON).unwrap();
    let mut large = server.peer();
    large.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(large.read_head().0, 200);
    let mut stream = server.peer();
    stream.send("GET /stream?400 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(stream.read_head().0, 200);
    for peer in [waiting, held, large, stream] {
        peer.reset();
    }
    let mut brisk = server.peer();
    eventually("whoever is owed nothing is gone", || {
        assert_eq!(brisk.get("/").status, 200);
        (server.handle.connections() <= 3).then_some(())
    });
    answer.put(Answer::Logged(7)).wake();
    server.release.send(()).unwrap();
    drop(brisk);
    every_place_is_given_back(&server);
}

#[test]
fn a_thousand_who_connect_and_reset_are_forgotten() {
    let server = Server::roomy(2, Limits::default());
    for _ in 0..1000 {
        Peer::to(server.address).reset();
    }
    every_place_is_given_back(&server);
    assert_eq!(server.handle.turned_away(), 0);
}
