//! What any peer, kind or not, sees of the front. This module runs real loops and workers on loopback, behind a toy app.

use std::any::Any;
use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bumpalo::Bump;
use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use sentinel::component::{Component, End};
use sentinel::http::front::{Front, FrontHandle};
use sentinel::http::limits::Limits;
use sentinel::http::{
    Admission, App, Handled, Head, Method, Place, Reply, Request, ReturnAddress, worker,
};
use sentinel::mailbox::{Answer, ReplyTo};

/// Long enough for anything that happens at all on a busy machine.
const SOON: Duration = Duration::from_secs(20);
const BODY_BYTES_MAX: usize = 1 << 20;
/// Set for the child process that is to run out of descriptors.
const FEW_DESCRIPTORS: &str = "FRONT_TEST_FEW_DESCRIPTORS";
const PIECE_BYTES: usize = 256 << 10;

/// Answers by what the path says.
struct Toy {
    /// Requests to `/wait`, for the test to answer.
    waiting: Sender<ReplyTo>,
    /// Requests to `/hold` on a worker: announced, then held until released.
    holding: Sender<()>,
    release: Receiver<()>,
}

fn text<'a>(status: u16, body: impl Into<Vec<u8>>) -> Reply<'a> {
    let (headers, body) = (vec![], Cow::Owned(body.into()));
    Reply { status, content_type: "text/plain", headers, body, close: false }
}

impl App for Toy {
    type Admitted = ();
    type Stream = usize;

    fn admit<'a>(&mut self, _: &'a Bump, head: &Head<'_>) -> Admission<'a, ()> {
        if head.path == "/forbidden" {
            return Admission::Refuse(text(403, "forbidden"));
        }
        let on_worker = head.path.starts_with("/work") || head.path == "/hold";
        let place = if on_worker { Place::Worker } else { Place::Loop };
        Admission::Read { admitted: (), place, body_bytes_max: BODY_BYTES_MAX }
    }

    fn handle<'a>(
        &mut self,
        arena: &'a Bump,
        request: &Request<'_>,
        (): (),
        back: &dyn ReturnAddress,
    ) -> Handled<'a, usize> {
        let head = &request.head;
        match head.path {
            "/wait" => {
                self.waiting.send(back.reply_to(Box::new(head.query.to_owned()))).unwrap();
                Handled::Waiting
            }
            "/hold" => {
                self.holding.send(()).unwrap();
                let _ = self.release.recv_timeout(SOON);
                Handled::Reply(text(200, "held"))
            }
            "/panic" | "/work/panic" => panic!("on purpose"),
            "/port" => Handled::Reply(text(200, format!("{:?}", head.port))),
            "/stream" | "/work/stream" => Handled::Stream {
                status: 200,
                content_type: "text/plain",
                headers: vec![],
                stream: head.query.parse().unwrap(),
            },
            "/large" => Handled::Reply(text(200, vec![b'x'; 8 << 20])),
            _ if head.method == Method::Post => {
                let body = arena.alloc_slice_copy(request.body);
                let body = Cow::Borrowed(&*body);
                Handled::Reply(Reply { body, ..text(200, "") })
            }
            path => Handled::Reply(text(200, format!("{path}?{}", head.query))),
        }
    }

    fn complete<'a>(
        &mut self,
        _: &'a Bump,
        context: Box<dyn Any + Send>,
        answer: Answer,
    ) -> Reply<'a> {
        let query = context.downcast::<String>().unwrap();
        match answer {
            Answer::Logged(rows) => text(202, format!("{query} {rows}")),
            Answer::Unavailable(why) => text(503, why),
            Answer::Verdicts(_) => text(500, "unexpected"),
        }
    }

    fn more(&mut self, left: usize) -> (Vec<u8>, Option<usize>) {
        (vec![b'a'; PIECE_BYTES], (left > 1).then(|| left - 1))
    }

    fn refuse<'a>(&mut self, _: &'a Bump, status: u16, detail: &'static str) -> Reply<'a> {
        text(status, detail)
    }

    fn replied(&mut self, _: u16, _: u64, _: usize) {}

    fn end_turn(&mut self) {}
}

/// A running front with two workers.
struct Server {
    address: SocketAddr,
    metrics: SocketAddr,
    handle: FrontHandle,
    loops: Vec<Component>,
    workers: Vec<Component>,
    waiting: Receiver<ReplyTo>,
    held: Receiver<()>,
    release: Sender<()>,
}

impl Server {
    fn start(loops: usize, limits: Limits) -> Self {
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut front = Front::bind(loopback, Some(loopback), loops, limits).unwrap();
        let (ended, _) = unbounded();
        let (waiting_in, waiting) = unbounded();
        let (holding, held) = unbounded();
        let (release, released) = unbounded();
        let (jobs_in, jobs) = bounded(2);
        let toy = || Toy {
            waiting: waiting_in.clone(),
            holding: holding.clone(),
            release: released.clone(),
        };
        let start_worker = |n| worker::start(n, toy(), jobs.clone(), ended.clone()).unwrap();
        let workers = (0..2).map(start_worker).collect();
        let (address, metrics) = (front.api_address(), front.metrics_address().unwrap());
        let handle = front.handle();
        let mut start_loop =
            |n| front.start_loop(n, toy(), jobs_in.clone(), ended.clone()).unwrap();
        let loops = (0..loops).map(&mut start_loop).collect();
        Self { address, metrics, handle, loops, workers, waiting, held, release }
    }

    fn stop(&mut self) {
        self.loops.iter_mut().for_each(Component::stop);
        self.handle.wake();
    }

    fn join(&mut self) {
        let deadline = Instant::now() + SOON;
        for component in self.loops.iter_mut().chain(&mut self.workers) {
            let end = component.join_by(deadline);
            assert!(matches!(end, End::Clean), "{} ended by {end:?}", component.name());
        }
    }

    fn peer(&self) -> Peer {
        Peer::to(self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if !std::thread::panicking() {
            self.join();
        }
    }
}

/// A client of one connection.
struct Peer {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Got {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Peer {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    fn get(&mut self, target: &str) -> Got {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        self.read()
    }

    fn post(&mut self, target: &str, body: &str) -> Got {
        let length = body.len();
        self.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        self.read()
    }

    fn half_close(&self) {
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line
    }

    fn read_head(&mut self) -> (u16, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let line = self.line();
            assert!(!line.is_empty(), "the connection ended within a head: {head:?}");
            head.push_str(&line);
        }
        (head[9..12].parse().unwrap(), head)
    }

    fn read(&mut self) -> Got {
        let (status, head) = self.read_head();
        let mut body = Vec::new();
        if head.contains("Transfer-Encoding: chunked") {
            loop {
                let size = usize::from_str_radix(self.line().trim_end(), 16).unwrap();
                let mut chunk = vec![0; size + 2];
                self.stream.read_exact(&mut chunk).unwrap();
                assert!(chunk.ends_with(b"\r\n"));
                body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else if let Some((_, after)) = head.split_once("Content-Length: ") {
            body.resize(after.lines().next().unwrap().parse().unwrap(), 0);
            self.stream.read_exact(&mut body).unwrap();
        }
        Got { status, head, body }
    }

    /// What comes until the connection ends, by a close or a reset.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let mut part = vec![0; 64 << 10];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return rest,
                Ok(bytes) => rest.extend_from_slice(&part[..bytes]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("the connection did not end")
                }
                Err(_) => return rest,
            }
        }
    }
}

#[test]
fn sixty_four_connections_at_once_are_all_answered_again_and_again() {
    let server = Server::start(2, Limits::default());
    let mut peers: Vec<Peer> = (0..64).map(|_| server.peer()).collect();
    for round in 0..3 {
        for peer in &mut peers {
            peer.send(format!("GET /{round} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        for peer in &mut peers {
            assert_eq!(peer.read().text(), format!("/{round}?"));
        }
    }
    assert_eq!(server.handle.connections(), 64);
}

#[test]
fn pipelined_requests_are_answered_in_their_order_wherever_they_are_handled() {
    let server = Server::start(1, Limits::default());
    let mut peer = server.peer();
    let paths = ["/a", "/wait", "/work/b", "/c"];
    for n in 0..25 {
        for path in paths {
            peer.send(format!("GET {path}?{n} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
    }
    for n in 0..25 {
        assert_eq!(peer.read().text(), format!("/a?{n}"));
        server.waiting.recv_timeout(SOON).unwrap().put(Answer::Logged(7)).wake();
        assert_eq!(peer.read().text(), format!("{n} 7"));
        assert_eq!(peer.read().text(), format!("/work/b?{n}"));
        assert_eq!(peer.read().text(), format!("/c?{n}"));
    }
}

#[test]
fn a_client_that_sends_byte_by_byte_is_understood() {
    let server = Server::start(1, Limits::default());
    let mut peer = server.peer();
    let request = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x\r\nllo\r\n0\r\n\r\n";
    for _ in 0..2 {
        for byte in request {
            peer.send([*byte]);
        }
        assert_eq!(peer.read().text(), "hello");
    }
}

#[test]
fn a_client_that_closes_its_side_gets_its_last_reply() {
    let server = Server::start(1, Limits::default());
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
fn head_tells_the_length_and_sends_no_body() {
    let server = Server::start(1, Limits::default());
    let mut peer = server.peer();
    for target in ["/a", "/work/a"] {
        peer.send(format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let (status, head) = peer.read_head();
        assert_eq!(status, 200);
        assert!(head.contains(&format!("Content-Length: {}\r\n", target.len() + 1)), "{head}");
        assert!(head.contains("\r\nDate: "), "{head}");
    }
    assert_eq!(peer.get("/next").text(), "/next?");
}

#[test]
fn a_body_is_asked_for_unless_it_is_refused() {
    let server = Server::start(1, Limits::default());
    let expecting = |target: &str, length: usize| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut peer = server.peer();
    peer.send(expecting("/echo", 5));
    assert_eq!(peer.read_head().0, 100);
    peer.send("hello");
    assert_eq!(peer.read().text(), "hello");
    peer.send(expecting("/forbidden", 5));
    assert_eq!(peer.read().status, 403);
    assert_eq!(peer.rest(), b"");
    let mut peer = server.peer();
    peer.send(expecting("/echo", BODY_BYTES_MAX + 1));
    assert_eq!(peer.read().status, 413);
}

#[test]
fn what_is_no_request_is_refused_and_the_reply_arrives() {
    let server = Server::start(1, Limits::default());
    let long_head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(17 << 10));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(70));
    let upload = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000000\r\n\r\n{}",
        "z".repeat(500_000)
    );
    let table = [
        (long_head.as_str(), 431),
        (&many_fields, 431),
        (&upload, 413),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: cake\r\n\r\n", 417),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
            400,
        ),
    ];
    for (request, status) in table {
        let mut peer = server.peer();
        peer.send(request);
        let got = peer.read();
        assert_eq!(got.status, status, "{request:.60}");
        assert!(got.head.contains("Connection: close\r\n"));
        peer.half_close();
        assert_eq!(peer.rest(), b"", "{request:.60}");
    }
}

#[test]
fn the_slow_are_given_up_and_cost_nobody_else_anything() {
    let limits = Limits {
        head_time: Duration::from_millis(300),
        body_time: Duration::from_millis(600),
        idle_time: Duration::from_millis(900),
        ..Limits::default()
    };
    let server = Server::start(1, limits);
    let mut slow_heads: Vec<Peer> = (0..50).map(|_| server.peer()).collect();
    let mut slow_bodies: Vec<Peer> = (0..50).map(|_| server.peer()).collect();
    let mut idle = server.peer();
    assert_eq!(idle.get("/").status, 200);
    slow_heads.iter_mut().for_each(|peer| peer.send("GET / HT"));
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe";
    slow_bodies.iter_mut().for_each(|peer| peer.send(head));
    let mut brisk = server.peer();
    for _ in 0..100 {
        assert_eq!(brisk.get("/").status, 200);
    }
    for peer in slow_heads.iter_mut().chain(&mut slow_bodies) {
        assert_eq!(peer.read().status, 408);
        assert_eq!(peer.rest(), b"");
    }
    assert_eq!(idle.rest(), b"", "an idle connection is closed without a word");
}

#[test]
fn who_does_not_read_is_cut_off_and_holds_up_nobody() {
    let limits = Limits { write_time: Duration::from_millis(300), ..Limits::default() };
    let server = Server::start(1, limits);
    let mut greedy = server.peer();
    greedy.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(40));
    let mut streaming = server.peer();
    streaming.send("GET /stream?400 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut brisk = server.peer();
    for _ in 0..100 {
        assert_eq!(brisk.get("/").status, 200);
    }
    // The connections are counted out before anything of theirs is read.
    let deadline = Instant::now() + SOON;
    while server.handle.connections() > 1 {
        assert!(Instant::now() < deadline, "the connections are still open");
        assert_eq!(brisk.get("/").status, 200);
    }
    assert!(greedy.rest().len() < 8 << 20);
    assert!(streaming.rest().len() < 100 << 20);
}

#[test]
fn a_stream_arrives_whole_at_a_slow_reader_while_others_are_served() {
    let server = Server::start(1, Limits::default());
    for path in ["/stream", "/work/stream"] {
        let mut slow = server.peer();
        slow.send(format!("GET {path}?40 HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut brisk = server.peer();
        for n in 0..100 {
            assert_eq!(brisk.get(&format!("/work/{n}")).status, 200);
        }
        assert_eq!(slow.read().body.len(), 40 * PIECE_BYTES);
        assert_eq!(slow.get("/next").text(), "/next?", "the connection goes on after a stream");
    }
    let mut old = server.peer();
    old.send("GET /stream?3 HTTP/1.0\r\n\r\n");
    let (_, head) = old.read_head();
    assert!(head.contains("Connection: close\r\n") && !head.contains("chunked"), "{head}");
    assert_eq!(old.rest().len(), 3 * PIECE_BYTES);
}

#[test]
fn a_full_house_of_workers_is_503_and_short_requests_are_served_on() {
    let server = Server::start(1, Limits::default());
    let mut held: Vec<Peer> = (0..4).map(|_| server.peer()).collect();
    for peer in &mut held[..2] {
        peer.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
        server.held.recv_timeout(SOON).unwrap();
    }
    // Both workers are held. Two more requests fill the channel, one after the other for all the test knows.
    for peer in &mut held[2..] {
        peer.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let mut brisk = server.peer();
    // Whoever comes after these two is turned away; the loop takes connections in turn.
    assert_eq!(brisk.get("/a").status, 200);
    let got = brisk.get("/work/a");
    assert_eq!(got.status, 503);
    assert!(got.head.contains("\r\nRetry-After: "), "{}", got.head);
    assert_eq!(brisk.get("/b").status, 200, "a 503 costs no connection");
    for _ in 0..4 {
        server.release.send(()).unwrap();
    }
    for peer in &mut held {
        assert_eq!(peer.read().text(), "held");
    }
    assert_eq!(brisk.get("/work/b").status, 200);
}

#[test]
fn a_panic_costs_its_own_request_only() {
    let server = Server::start(1, Limits::default());
    let mut neighbour = server.peer();
    assert_eq!(neighbour.get("/").status, 200);
    for target in ["/panic", "/work/panic", "/panic", "/work/panic", "/work/panic"] {
        let mut peer = server.peer();
        let got = peer.get(target);
        assert_eq!(got.status, 500);
        assert!(got.head.contains("Connection: close\r\n"));
        assert_eq!(peer.rest(), b"");
        assert_eq!(neighbour.get("/work/a").status, 200);
    }
}

#[test]
fn who_comes_when_the_house_is_full_hears_so_and_may_come_again() {
    let limits = Limits { connections_max: 3, connections_per_ip_max: 2, ..Limits::default() };
    let server = Server::start(2, limits);
    let (mut first, mut second) = (server.peer(), server.peer());
    assert_eq!(first.get("/").status, 200);
    assert_eq!(second.get("/").status, 200);
    let mut third = server.peer();
    let got = third.read();
    assert_eq!(got.status, 503);
    assert!(got.head.contains("\r\nRetry-After: "), "{}", got.head);
    assert_eq!(third.rest(), b"");
    assert!(server.handle.turned_away() > 0);
    drop(first);
    let deadline = Instant::now() + SOON;
    while server.handle.connections() > 1 {
        assert!(Instant::now() < deadline, "the place was never given back");
        assert_eq!(second.get("/").status, 200);
    }
    assert_eq!(server.peer().get("/").status, 200);
}

#[test]
fn a_stop_answers_what_is_in_flight_and_closes_the_idle() {
    let mut server = Server::start(1, Limits::default());
    let mut idle = server.peer();
    assert_eq!(idle.get("/").status, 200);
    let (mut waiting, mut held, mut sending) = (server.peer(), server.peer(), server.peer());
    waiting.send("GET /wait?1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer_to = server.waiting.recv_timeout(SOON).unwrap();
    held.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    server.held.recv_timeout(SOON).unwrap();
    sending.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(sending.read_head().0, 100);
    server.stop();
    assert_eq!(idle.rest(), b"", "an idle connection is closed at once");
    sending.send("hello");
    answer_to.put(Answer::Logged(7)).wake();
    server.release.send(()).unwrap();
    for (peer, body) in [(&mut waiting, "1 7"), (&mut sending, "hello"), (&mut held, "held")] {
        let got = peer.read();
        assert_eq!(got.text(), body);
        assert!(got.head.contains("Connection: close\r\n"), "{}", got.head);
        assert_eq!(peer.rest(), b"");
    }
    drop((waiting, held, sending));
    server.join();
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");
    assert_eq!(server.handle.connections(), 0);
}

#[test]
fn a_stop_does_not_wait_longer_than_it_was_given() {
    let limits = Limits { drain_time: Duration::from_millis(100), ..Limits::default() };
    let mut server = Server::start(1, limits);
    let mut peer = server.peer();
    peer.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer_to = server.waiting.recv_timeout(SOON).unwrap();
    server.stop();
    server.join();
    assert_eq!(peer.rest(), b"");
    answer_to.put(Answer::Logged(7)).wake();
}

#[test]
fn both_ports_serve_and_say_which_is_which() {
    let server = Server::start(2, Limits::default());
    assert_eq!(server.peer().get("/port").text(), "Api");
    assert_eq!(Peer::to(server.metrics).get("/port").text(), "Metrics");
}

#[test]
fn a_port_that_is_taken_is_never_shared_with_a_stranger() {
    let server = Server::start(2, Limits::default());
    for loops in [1, 2] {
        assert!(Front::bind(server.address, None, loops, Limits::default()).is_err());
    }
}

#[test]
fn bodies_of_any_size_come_back_from_loop_and_worker_alike() {
    let server = Server::start(1, Limits::default());
    let mut peer = server.peer();
    for bytes in [0, 1, 1000, 70_000, BODY_BYTES_MAX] {
        let body = "b".repeat(bytes);
        for target in ["/echo", "/work/echo"] {
            let got = peer.post(target, &body);
            assert_eq!((got.status, got.text() == body), (200, true), "{target} {bytes}");
        }
    }
    assert_eq!(peer.get("/large").body.len(), 8 << 20);
}

#[test]
fn who_comes_when_there_is_no_descriptor_left_costs_nobody_else_anything() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "front::a_server_with_few_descriptors"])
        .env(FEW_DESCRIPTORS, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address: SocketAddr = lines
        .find_map(|line| line.unwrap().split_once("listens on ")?.1.parse().ok())
        .expect("the server says where it listens");
    let mut peers: Vec<Peer> = (0..100).map(|_| Peer::to(address)).collect();
    let mut ask = |peer: &mut Peer| {
        // A connection that was dropped may fail at either step.
        let _ = peer.stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut first = [0];
        matches!(peer.stream.read(&mut first), Ok(1))
    };
    let served = peers.iter_mut().map(&mut ask).filter(|served| *served).count();
    assert!((10..90).contains(&served), "{served} of 100 were served");
    drop(peers);
    let deadline = Instant::now() + SOON;
    while !ask(&mut Peer::to(address)) {
        assert!(Instant::now() < deadline, "nobody is served any more");
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// The other side of the test above, in a process of its own, which ends with its input.
#[test]
#[ignore = "is started by another test"]
fn a_server_with_few_descriptors() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if std::env::var_os(FEW_DESCRIPTORS).is_none() {
        return;
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(48), maximum: Some(48) }).unwrap();
    let server = Server::start(1, Limits::default());
    println!("listens on {}", server.address);
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    assert!(server.handle.accept_errors() > 0, "the descriptors never ran out");
}
