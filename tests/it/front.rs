//! What any peer sees of the front. This module runs real loops and workers on loopback, behind a toy app; the unkind
//! peers of `hostile_clients` meet the same app.

use std::any::Any;
use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bumpalo::Bump;
use crossbeam::channel::{Receiver, Sender, unbounded};
use sentinel::component::{Component, End};
use sentinel::domain::ids::{StreamKey, TenantId};
use sentinel::http::front::{Front, FrontHandle};
use sentinel::http::limits::Limits;
use sentinel::http::{
    Admission, App, Handled, Head, Lateness, Method, Pause, Place, Reply, Request, ReturnAddress,
    turns, worker,
};
use sentinel::live::{Hub, Subject, Subscription};
use sentinel::mailbox::{Answer, ReplyTo};
use sentinel::room::Account;

use crate::harness::eventually;

/// Long enough for anything that happens at all on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// Answers by what the path says.
struct Toy {
    /// Requests to `/wait`, for the test to answer.
    waiting: Sender<ReplyTo>,
    /// Requests to `/hold` on a worker: announced, then held until released.
    holding: Sender<()>,
    release: Receiver<()>,
    /// Where requests to `/late` wait for news.
    hub: Arc<Hub>,
    /// Whoever asks, unless it is for `/work/other`.
    account: Arc<Account>,
    other: Arc<Account>,
}

/// A reply that comes with the news, or when its time is up. None: it panics.
struct Late(Option<(Arc<Subscription>, Instant)>);

fn text<'a>(status: u16, body: impl Into<Vec<u8>>) -> Reply<'a> {
    let (headers, body) = (vec![], Cow::Owned(body.into()));
    Reply { status, content_type: "text/plain", headers, body, close: false }
}

impl App for Toy {
    type Admitted = Arc<Account>;
    type Stream = usize;
    type Late = Late;

    fn admit<'a>(&mut self, _: &'a Bump, head: &Head<'_>) -> Admission<'a, Arc<Account>> {
        if head.path == "/forbidden" {
            return Admission::Refuse(text(403, "forbidden"));
        }
        let on_worker = head.path.starts_with("/work") || head.path == "/hold";
        let place = if on_worker { Place::Worker } else { Place::Loop };
        let is_other = head.path == "/work/other";
        let admitted = Arc::clone(if is_other { &self.other } else { &self.account });
        Admission::Read { admitted, place, body_bytes_max: BODY_BYTES_MAX }
    }

    fn account(account: &Arc<Account>) -> Option<&Arc<Account>> {
        Some(account)
    }

    fn handle<'a>(
        &mut self,
        arena: &'a Bump,
        request: &Request<'_>,
        _: Arc<Account>,
        back: &dyn ReturnAddress,
    ) -> Handled<'a, usize, Late> {
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
            "/late" | "/work/late" => {
                let (tenant, stream) = (TenantId::parse("t"), StreamKey::parse("s"));
                let subject = Subject::Events(tenant.unwrap(), stream.unwrap());
                let millis = head.query.parse().ok();
                Handled::Late(Late(millis.map(|millis| {
                    let until = Instant::now() + Duration::from_millis(millis);
                    (Arc::new(self.hub.subscribe(subject)), until)
                })))
            }
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
            Answer::Unavailable(why) | Answer::HeldBack(why) => text(503, why),
            Answer::Verdicts(_) => text(500, "unexpected"),
        }
    }

    fn more(&mut self, left: usize) -> (Vec<u8>, Option<usize>) {
        (vec![b'a'; PIECE_BYTES], (left > 1).then(|| left - 1))
    }

    fn late<'a>(&mut self, _: &'a Bump, late: Late) -> Lateness<'a, Late> {
        let Late(Some((news, until))) = late else { panic!("on purpose") };
        if news.take().is_some() {
            return Lateness::Reply(text(201, "news"));
        }
        if until <= Instant::now() {
            return Lateness::Reply(text(404, "none"));
        }
        let pause = Pause { news: Arc::clone(&news), until: Some(until) };
        Lateness::NotYet(Late(Some((news, until))), pause)
    }

    fn refuse<'a>(&mut self, _: &'a Bump, status: u16, detail: &'static str) -> Reply<'a> {
        text(status, detail)
    }

    fn replied(&mut self, _: u16, _: u64, _: usize) {}

    fn end_turn(&mut self) {}
}

/// A running front with two workers.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) handle: FrontHandle,
    loops: Vec<Component>,
    workers: Vec<Component>,
    pub(crate) waiting: Receiver<ReplyTo>,
    pub(crate) held: Receiver<()>,
    pub(crate) release: Sender<()>,
    hub: Arc<Hub>,
}

impl Server {
    /// With a channel to the workers that holds two requests.
    pub(crate) fn start(loops: usize, limits: Limits) -> Self {
        Self::start_with(loops, limits, 2)
    }

    /// With room for every request of a test in the channel to the workers.
    pub(crate) fn roomy(loops: usize, limits: Limits) -> Self {
        Self::start_with(loops, limits, 1000)
    }

    fn start_with(loops: usize, limits: Limits, jobs_max: usize) -> Self {
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut front = Front::bind(loopback, Some(loopback), loops, limits).unwrap();
        let (ended, _) = unbounded();
        let (waiting_in, waiting) = unbounded();
        let (holding, held) = unbounded();
        let (release, released) = unbounded();
        let (jobs_in, jobs) = turns::bounded(jobs_max);
        let hub = Arc::new(Hub::default());
        let [account, other] = ["one", "other"]
            .map(|name| Arc::new(Account::new(TenantId::parse(name).expect("a valid tenant"))));
        let toy = || Toy {
            hub: Arc::clone(&hub),
            waiting: waiting_in.clone(),
            holding: holding.clone(),
            release: released.clone(),
            account: Arc::clone(&account),
            other: Arc::clone(&other),
        };
        let start_worker = |n| worker::start(n, toy(), jobs.clone(), ended.clone()).unwrap();
        let workers = (0..2).map(start_worker).collect();
        let (address, metrics) = (front.api_address(), front.metrics_address().unwrap());
        let handle = front.handle();
        let mut start_loop =
            |n| front.start_loop(n, toy(), jobs_in.clone(), ended.clone()).unwrap();
        let loops = (0..loops).map(&mut start_loop).collect();
        Self { address, metrics, handle, loops, workers, waiting, held, release, hub }
    }

    pub(crate) fn stop(&mut self) {
        self.loops.iter_mut().for_each(Component::stop);
        self.handle.wake();
    }

    pub(crate) fn join(&mut self) {
        let deadline = Instant::now() + SOON;
        for component in self.loops.iter_mut().chain(&mut self.workers) {
            let end = component.join_by(deadline);
            assert!(matches!(end, End::Clean), "{} ended by {end:?}", component.name());
        }
    }

    pub(crate) fn peer(&self) -> Peer {
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
pub(crate) struct Peer {
    pub(crate) stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Peer {
    pub(crate) fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// A client at another address of loopback.
    pub(crate) fn at(source: [u8; 4], address: SocketAddr) -> Self {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends as much as the other side takes before it has had enough.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// Ends the connection by a reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(self.stream.get_ref());
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn get(&mut self, target: &str) -> Got {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        self.read()
    }

    pub(crate) fn post(&mut self, target: &str, body: &str) -> Got {
        let length = body.len();
        self.send(format!(
            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
        ));
        self.read()
    }

    pub(crate) fn half_close(&self) {
        self.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line
    }

    pub(crate) fn read_head(&mut self) -> (u16, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let line = self.line();
            assert!(!line.is_empty(), "the connection ended within a head: {head:?}");
            head.push_str(&line);
        }
        (head[9..12].parse().unwrap(), head)
    }

    pub(crate) fn read(&mut self) -> Got {
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
    pub(crate) fn rest(&mut self) -> Vec<u8> {
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
fn a_late_reply_has_its_own_status_and_nobody_waits_with_it() {
    let server = Server::roomy(1, Limits::default());
    for path in ["/late", "/work/late"] {
        // More than there are workers.
        let mut waiting: Vec<Peer> = (0..10).map(|_| server.peer()).collect();
        for peer in &mut waiting {
            peer.send(format!("GET {path}?20000 HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        eventually("all of them wait", || (server.hub.len() == waiting.len()).then_some(()));
        assert_eq!(server.peer().get("/work/a").status, 200);
        server.hub.announce_all();
        for peer in &mut waiting {
            let got = peer.read();
            assert_eq!((got.status, got.text()), (201, "news"), "{}", got.head);
            assert!(got.head.contains("Content-Length: 4"), "{}", got.head);
            assert_eq!(peer.get("/next").text(), "/next?", "the connection goes on");
        }
        let mut peer = server.peer();
        assert_eq!(peer.get(&format!("{path}?50")).status, 404, "its time is up");
        assert_eq!(peer.get(&format!("{path}?panic")).status, 500);
    }
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
fn a_body_that_waits_for_its_worker_holds_its_room_whatever_becomes_of_its_sender() {
    let server = Server::start(1, Limits { bodies_bytes_max: 200_000, ..Limits::default() });
    let hold = |bytes: usize| {
        let mut peer = server.peer();
        peer.send(format!("POST /hold HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n"));
        peer.send("b".repeat(bytes));
        server.held.recv_timeout(SOON).unwrap();
        peer
    };
    let (mut first, second) = (hold(60_000), hold(30_000));
    assert_eq!(server.handle.body_bytes(), 90_000);
    let got = server.peer().post("/work/echo", &"b".repeat(20_000));
    assert_eq!(got.status, 503);
    assert!(got.head.contains("\r\nRetry-After: "), "{}", got.head);
    second.reset();
    assert_eq!(server.peer().get("/a").status, 200, "the loop has had its turn");
    assert_eq!(server.handle.body_bytes(), 90_000, "the workers have not come to their end");
    server.release.send(()).unwrap();
    server.release.send(()).unwrap();
    assert_eq!(first.read().text(), "held");
    eventually("all room is given back", || (server.handle.body_bytes() == 0).then_some(()));
    assert_eq!(server.peer().post("/work/echo", &"b".repeat(100_000)).status, 200);
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
fn whoever_has_much_waiting_for_the_workers_keeps_nobody_else_waiting() {
    let server = Server::roomy(1, Limits::default());
    let hold = || {
        let mut peer = server.peer();
        peer.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
        peer
    };
    let mut greedy = vec![hold(), hold()];
    server.held.recv_timeout(SOON).unwrap();
    server.held.recv_timeout(SOON).unwrap();
    greedy.extend((0..10).map(|_| hold()));
    assert_eq!(server.peer().get("/a").status, 200, "the loop has seen them");
    let mut other = server.peer();
    other.send("GET /work/other HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(server.peer().get("/a").status, 200, "the loop has seen it");
    server.release.send(()).unwrap();
    server.release.send(()).unwrap();
    assert_eq!(other.read().status, 200, "ten came before it, and one of them was its turn");
    for _ in 0..10 {
        server.release.send(()).unwrap();
    }
    for mut peer in greedy {
        assert_eq!(peer.read().text(), "held");
    }
}
