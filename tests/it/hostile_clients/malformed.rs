//! What is no request, and what two parsers could take for two different ones: each is refused by name, the refusal
//! arrives, the connection ends, and nothing that follows is taken for a request.

use sentinel::http::limits::Limits;

use crate::front::{BODY_BYTES_MAX, Peer, Server};

/// What follows every attack. No reply may ever come for it.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// `GET /` with these further lines.
fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

/// `POST /echo` with these further lines and this body.
fn post(lines: &str, body: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}")
}

/// A chunked body, as it is sent.
fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// One chunk of nearly all that a body may have, with a request in it, and one more.
fn too_many_chunks() -> String {
    let size = BODY_BYTES_MAX - 16;
    let padding = "x".repeat(size - SMUGGLED.len());
    chunked(&format!("{size:x}\r\n{SMUGGLED}{padding}\r\n{size:x}\r\n{SMUGGLED}"))
}

/// The attacks with the status that each must get.
fn attacks() -> Vec<(&'static str, String, u16)> {
    let length = |value: &str| post(&format!("Content-Length: {value}\r\n"), "abc");
    let coding = |value: &str| post(&format!("Transfer-Encoding: {value}\r\n"), "0\r\n\r\n");
    vec![
        // The length of the body.
        (
            "TE and CL",
            post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"),
            400,
        ),
        (
            "CL and TE",
            post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            400,
        ),
        (
            "two lengths that differ",
            post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"),
            400,
        ),
        (
            "two lengths that agree",
            post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            400,
        ),
        ("a list of lengths", length("3, 3"), 400),
        ("length +5", length("+5"), 400),
        ("length -5", length("-5"), 400),
        ("length 5x", length("5x"), 400),
        ("length 0x3", length("0x3"), 400),
        ("length 3.0", length("3.0"), 400),
        ("an empty length", length(""), 400),
        ("length 2^62", length("4611686018427387904"), 400),
        ("length 2^63-1", length("9223372036854775807"), 400),
        ("length 2^64-1", length("18446744073709551615"), 400),
        ("length 2^64", length("18446744073709551616"), 400),
        ("length 200e9", length("200000000000"), 413),
        ("length 10^9", length("1000000000"), 413),
        ("length of one byte too many", length(&(BODY_BYTES_MAX + 1).to_string()), 413),
        // The transfer coding.
        ("coding identity", coding("identity"), 501),
        ("coding xchunked", coding("xchunked"), 501),
        ("coding gzip", coding("gzip"), 501),
        ("coding gzip, chunked", coding("gzip, chunked"), 501),
        ("coding chunked, identity", coding("chunked, identity"), 501),
        ("coding in quotes", coding("\"chunked\""), 501),
        (
            "coding twice",
            post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            400,
        ),
        (
            "coding in HTTP/1.0",
            "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            400,
        ),
        // Chunks.
        ("chunk size -1", chunked("-1\r\nabc\r\n0\r\n\r\n"), 400),
        ("chunk size +3", chunked("+3\r\nabc\r\n0\r\n\r\n"), 400),
        ("chunk size 0x3", chunked("0x3\r\nabc\r\n0\r\n\r\n"), 400),
        ("chunk size with a blank", chunked("3 \r\nabc\r\n0\r\n\r\n"), 400),
        ("a huge chunk size", chunked("FFFFFFFF\r\nabc"), 413),
        ("an overflowing chunk size", chunked("FFFFFFFFFFFFFFFFF\r\nabc"), 400),
        ("chunk size 2^64+3", chunked("10000000000000003\r\nabc\r\n0\r\n\r\n"), 400),
        ("no chunk size", chunked("\r\nabc\r\n0\r\n\r\n"), 400),
        ("a chunk longer than its size", chunked("3\r\nabcd\r\n0\r\n\r\n"), 400),
        ("bare LF after a chunk size", chunked("3\nabc\r\n0\r\n\r\n"), 400),
        ("bare LF after a chunk", chunked("3\r\nabc\n0\r\n\r\n"), 400),
        ("bare LF in a chunk extension", chunked("3;a\nabc\r\n0\r\n\r\n"), 400),
        ("a chunk extension without end", chunked(&format!("3;{}", "x".repeat(300))), 400),
        ("trailers without end", chunked(&format!("0\r\n{}", "X: y\r\n".repeat(1000))), 431),
        ("chunks above the bound, with a request inside", too_many_chunks(), 413),
        // Lines.
        ("obs-fold", get("X: y\r\n z\r\n"), 400),
        ("obs-fold of a coding", post("X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        ("obs-fold of the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(), 400),
        ("bare LF after every line", "GET / HTTP/1.1\nHost: a\n\n".into(), 400),
        ("bare LF after one field", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n".into(), 400),
        ("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n".into(), 400),
        ("LF in a value", get("X: y\nz\r\n"), 400),
        ("CR in a value", get("X: y\rz\r\n"), 400),
        ("NUL in a value", get("X: y\0z\r\n"), 400),
        ("ESC in a value", get("X: \x1b[31m\r\n"), 400),
        ("space before the colon", get("X : y\r\n"), 400),
        ("space before the colon of a length", post("Content-Length : 3\r\n", "abc"), 400),
        ("a field without a name", get(": y\r\n"), 400),
        ("a field without a colon", get("X\r\n"), 400),
        // The request line.
        ("NUL in the path", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("LF in the path", "GET /a\nb HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("ESC in the path", "GET /\x1b[2J HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("an extra token", "GET / x HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("an extra token at the end", "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n".into(), 400),
        ("the absolute form", "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".into(), 501),
        ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), 400),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 400),
        ("a TLS greeting", "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n".into(), 400),
        // The host.
        ("no Host", "GET / HTTP/1.1\r\n\r\n".into(), 400),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), 400),
        ("two Hosts that agree", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".into(), 400),
        ("a Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), 400),
        // Size.
        ("70 fields", get(&"X: y\r\n".repeat(70)), 431),
        ("a field of 17 KB", get(&format!("X: {}\r\n", "y".repeat(17 << 10))), 431),
        (
            "a path of 17 KB",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(17 << 10)),
            431,
        ),
        // Expectations.
        (
            "an expectation that nobody knows",
            post("Expect: cake\r\nContent-Length: 3\r\n", "abc"),
            417,
        ),
    ]
}

#[test]
fn every_malformed_request_has_its_answer_and_smuggles_nothing() {
    let server = Server::roomy(1, Limits::default());
    for (name, request, status) in attacks() {
        let mut peer = server.peer();
        // The other side may have had enough before it is all sent.
        peer.try_send(request);
        peer.try_send(SMUGGLED);
        let got = peer.read();
        assert_eq!(got.status, status, "{name}: {}", got.text());
        assert!(got.head.contains("Connection: close\r\n"), "{name}: {}", got.head);
        let _ = peer.stream.get_ref().shutdown(std::net::Shutdown::Write);
        assert_eq!(peer.rest(), b"", "{name}: something was smuggled");
    }
    assert_eq!(server.peer().get("/").status, 200);
}

#[test]
fn a_refusal_reaches_a_peer_in_mid_upload() {
    let server = Server::roomy(1, Limits::default());
    let mut peer = server.peer();
    peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000000\r\n\r\n");
    peer.send("z".repeat(500_000));
    let got = peer.read();
    assert_eq!(got.status, 413);
    peer.half_close();
    assert_eq!(peer.rest(), b"");
}

#[test]
fn a_body_is_never_taken_for_the_next_request() {
    let server = Server::roomy(1, Limits::default());
    let valid = chunked("3\r\nabc\r\n0\r\n\r\n");
    let with_trailer = chunked("3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n");
    let length = SMUGGLED.len();
    let hidden = post(&format!("Content-Length: {length}\r\n"), SMUGGLED);
    let in_chunk = chunked(&format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"));
    for (name, request, echo) in [
        ("chunked", &valid, "abc"),
        ("chunked, with an extension and a trailer", &with_trailer, "abc"),
        ("a request as the body", &hidden, SMUGGLED),
        ("a request in a chunk", &in_chunk, SMUGGLED),
    ] {
        for target in ["/echo", "/work/echo"] {
            let mut peer = server.peer();
            let request = request.replacen("/echo", target, 1);
            // Two requests in one write, as a pipelining client sends them.
            peer.send(format!("{request}{}", get("")));
            assert_eq!(peer.read().text(), echo, "{name}");
            assert_eq!(peer.read().text(), "/?", "{name}");
        }
    }
    // A refused body that has not come ends the connection, so that it is never taken for a request; one that is here
    // already is skipped.
    for framing in [format!("Content-Length: {length}"), "Transfer-Encoding: chunked".to_owned()] {
        let mut peer = server.peer();
        peer.send(format!("POST /forbidden HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"));
        assert_eq!(peer.read().status, 403);
        peer.try_send(SMUGGLED);
        let _ = peer.stream.get_ref().shutdown(std::net::Shutdown::Write);
        assert_eq!(peer.rest(), b"", "{framing}");
    }
    let mut peer = server.peer();
    let whole = format!(
        "POST /forbidden HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}"
    );
    peer.send(format!("{whole}{}", get("")));
    assert_eq!(peer.read().status, 403);
    assert_eq!(peer.read().text(), "/?");
}

#[test]
fn a_body_is_asked_for_unless_it_is_refused() {
    let server = Server::roomy(1, Limits::default());
    let expecting = |target: &str, length: usize| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    for target in ["/echo", "/work/echo"] {
        let mut peer = server.peer();
        peer.send(expecting(target, 5));
        assert_eq!(peer.read_head().0, 100);
        peer.send("hello");
        assert_eq!(peer.read().text(), "hello");
        peer.send(expecting("/forbidden", 5));
        assert_eq!(peer.read().status, 403);
        assert_eq!(peer.rest(), b"");
    }
    let mut peer = server.peer();
    peer.send(expecting("/echo", BODY_BYTES_MAX + 1));
    assert_eq!(peer.read().status, 413);
}

#[test]
fn head_tells_the_length_and_sends_no_body() {
    let server = Server::roomy(1, Limits::default());
    let mut peer = server.peer();
    for target in ["/a", "/work/a"] {
        peer.send(format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let (status, head) = peer.read_head();
        assert_eq!(status, 200);
        assert!(head.contains(&format!("Content-Length: {}\r\n", target.len() + 1)), "{head}");
        assert!(head.contains("\r\nDate: "), "{head}");
    }
    // The next reply begins where the head ended.
    assert_eq!(peer.get("/next").text(), "/next?");
}

#[test]
fn a_client_cannot_choose_how_the_reply_is_framed() {
    let server = Server::roomy(1, Limits::default());
    let mut peer = server.peer();
    peer.send("GET /large HTTP/1.1\r\nHost: a\r\nTE: chunked, trailers\r\nConnection: TE\r\n\r\n");
    let got = peer.read();
    assert!(got.head.contains("\r\nContent-Length: 8388608\r\n"), "{}", got.head);
    assert!(!got.head.to_lowercase().contains("transfer-encoding"), "{}", got.head);
    // HTTP/1.0 is answered once.
    let mut old = server.peer();
    old.send(format!("GET / HTTP/1.0\r\n\r\n{SMUGGLED}"));
    let got = old.read();
    assert_eq!((got.status, got.text()), (200, "/?"));
    assert!(got.head.contains("Connection: close\r\n"), "{}", got.head);
    let _ = old.stream.get_ref().shutdown(std::net::Shutdown::Write);
    assert_eq!(old.rest(), b"");
}

#[test]
fn a_reply_leaves_in_one_write() {
    let server = Server::roomy(1, Limits::default());
    let mut peer = server.peer();
    let body = "b".repeat(1500);
    let length = body.len();
    for target in ["/echo", "/work/echo"] {
        peer.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        // Head and body in two writes would wait for each other for 40 ms on a real network.
        let mut first = vec![0; 64 << 10];
        let bytes = std::io::Read::read(peer.stream.get_mut(), &mut first).unwrap();
        assert!(first[..bytes].ends_with(body.as_bytes()), "{target}: {bytes} bytes came at once");
    }
}

#[test]
fn a_panic_costs_its_own_request_only() {
    let server = Server::roomy(1, Limits::default());
    let mut neighbour = server.peer();
    assert_eq!(neighbour.get("/").status, 200);
    let mut waiting = server.peer();
    waiting.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    server.held.recv_timeout(crate::front::SOON).unwrap();
    // One worker is held, so these five are all handled by the other, which must survive each of them.
    for target in ["/panic", "/work/panic", "/panic", "/work/panic", "/work/panic"] {
        let mut peer = server.peer();
        let got = peer.post(target, &"b".repeat(100_000));
        assert_eq!(got.status, 500);
        assert!(got.head.contains("Connection: close\r\n"));
        assert_eq!(server.handle.body_bytes(), 0, "{target}: the room of the body is given back");
        assert_eq!(peer.rest(), b"");
        assert_eq!(neighbour.get("/work/a").status, 200);
    }
    server.release.send(()).unwrap();
    assert_eq!(waiting.read().text(), "held");
}

#[test]
fn clients_that_ask_for_http_2_and_leave_take_nothing_with_them() {
    let server = Server::roomy(1, Limits::default());
    for _ in 0..50 {
        let mut peer = server.peer();
        peer.send("GET /work/a HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/2.0\r\nHost: a\r\n\r\n");
    }
    let mut brisk = Peer::to(server.address);
    crate::harness::eventually("every place is given back", || {
        assert_eq!(brisk.get("/work/a").status, 200);
        (server.handle.connections() == 1).then_some(())
    });
}
