//! What a peer sees of a connection, byte by byte and second by second, without a socket. This module moves the time
//! by hand.

mod rooms;
mod streams;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::super::limits::{Limits, OUT_BYTES_HIGH, READ_BYTES, SMALL_BODIES_PART};
use super::super::reply::Date;
use super::super::{Head, Place, Reply, Request};
use super::*;
use crate::domain::ids::TenantId;
use crate::room::{Account, Rooms};

/// Admits `/refused` never, `/batch` with [`BATCH_BYTES_MAX`], everything else with 100 bytes of body, and says what it
/// was asked. Who asks for `/stranger…` is not known.
struct Scribe {
    seen: Vec<String>,
    /// Requests sent to a worker: their bytes and the length of their heads.
    dispatched: Vec<Parcel<String>>,
    bodies: Arc<Rooms>,
    /// Whoever asks, unless it is for `/stranger…`.
    account: Arc<Account>,
    date: Date,
}

impl Scribe {
    fn frame(&self, status: u16, body: &str, facts: Facts, out: &mut Vec<u8>) -> bool {
        let (headers, body) = (vec![], Cow::Borrowed(body.as_bytes()));
        let reply = Reply { status, content_type: "text/plain", headers, body, close: false };
        reply::frame(out, &reply, facts, &self.date)
    }
}

impl Responder for Scribe {
    type Admitted = String;
    type Stream = u32;

    fn admit(&mut self, head: &Head<'_>, facts: Facts, out: &mut Vec<u8>) -> Verdict<String> {
        if head.path == "/refused" {
            return Verdict::Refused { keep: self.frame(401, "refused", facts, out) };
        }
        let place = if head.path.starts_with("/worker") { Place::Worker } else { Place::Loop };
        let admitted = format!("{:?} {}", head.method, head.path);
        let is_batch = head.path.contains("batch");
        let body_bytes_max = if is_batch { BATCH_BYTES_MAX } else { 100 };
        Verdict::Read { admitted, place, body_bytes_max }
    }

    fn handle(
        &mut self,
        request: &Request<'_>,
        admitted: String,
        facts: Facts,
        out: &mut Vec<u8>,
    ) -> Outcome<u32> {
        let body = String::from_utf8_lossy(request.body);
        let fields = request.head.headers.0.len();
        self.seen.push(format!("{admitted} {} {fields} {body}", request.head.query));
        match request.head.path {
            "/waiting" => Outcome::Waiting,
            "/late" => Outcome::Late { stream: Box::new(0) },
            "/stream" => {
                let date = &self.date;
                let keep = reply::frame_stream_head(out, 200, "text/plain", &[], facts, date);
                Outcome::Stream { stream: Box::new(0), keep }
            }
            "/large" => {
                let keep = self.frame(200, &"x".repeat(OUT_BYTES_HIGH), facts, out);
                Outcome::Replied { keep }
            }
            _ => Outcome::Replied { keep: self.frame(200, &body, facts, out) },
        }
    }

    fn dispatch(&mut self, parcel: Parcel<String>, _: Facts, _: &mut Vec<u8>) -> Outcome<u32> {
        self.dispatched.push(parcel);
        Outcome::Waiting
    }

    fn refuse(&mut self, refusal: Refusal, facts: Facts, out: &mut Vec<u8>) -> bool {
        self.frame(refusal.status, refusal.detail, facts, out)
    }

    fn bodies(&self) -> &Arc<Rooms> {
        &self.bodies
    }

    fn account<'a>(&'a self, admitted: &'a String) -> Option<&'a Arc<Account>> {
        (!admitted.contains("/stranger")).then_some(&self.account)
    }

    fn buffer(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn recycle(&mut self, _: Vec<u8>) {}
}

/// A connection with its responder, its clock and a peer that reads everything at once.
struct Bench {
    connection: Connection<String, u32>,
    scribe: Scribe,
    limits: Limits,
    start: Instant,
    now: Instant,
    draining: bool,
    got: String,
    closing: Closing,
}

/// The room for bodies in a bench, and what there is beside it for small ones.
const BODIES_BYTES_MAX: usize = 40_000;
const SMALL_BYTES_MAX: usize = BODIES_BYTES_MAX / SMALL_BODIES_PART;

/// The longest batch.
const BATCH_BYTES_MAX: usize = 4 << 20;

const CLOSED: Closing = Closing::Whole;

impl Bench {
    fn new() -> Self {
        let limits = Limits { bodies_bytes_max: BODIES_BYTES_MAX, ..Limits::default() };
        let now = Instant::now();
        let moment = Moment { now, limits: &limits, draining: false };
        let peer = IpAddr::from(Ipv4Addr::LOCALHOST);
        let connection = Connection::new(peer, Port::Api, moment);
        let date = Date::new(UNIX_EPOCH + Duration::from_secs(784_111_777));
        let bodies = Rooms::new(BODIES_BYTES_MAX + SMALL_BYTES_MAX);
        let account = Arc::new(Account::new(TenantId::parse("t").unwrap()));
        let scribe = Scribe { seen: vec![], dispatched: vec![], bodies, account, date };
        let (got, closing) = (String::new(), Closing::Open);
        Self { connection, scribe, limits, start: now, now, draining: false, got, closing }
    }

    fn with<R>(
        &mut self,
        act: impl FnOnce(&mut Connection<String, u32>, Moment<'_>, &mut Scribe) -> R,
    ) -> R {
        let moment = Moment { now: self.now, limits: &self.limits, draining: self.draining };
        act(&mut self.connection, moment, &mut self.scribe)
    }

    fn receive(&mut self, bytes: &[u8]) {
        assert!(self.connection.wants_input(), "nothing is read now");
        self.with(|connection, moment, scribe| connection.receive(bytes, moment, scribe));
    }

    /// Sends in pieces, as a loop reads them.
    fn send(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(READ_BYTES) {
            if !self.connection.wants_input() {
                return;
            }
            self.receive(piece);
            self.flush();
        }
    }

    fn flush(&mut self) {
        loop {
            self.with(|connection, moment, scribe| connection.resume(moment, scribe));
            let bytes = self.connection.output().len();
            self.got.push_str(&String::from_utf8_lossy(self.connection.output()));
            self.with(|connection, moment, _| connection.wrote(bytes, moment));
            if !self.connection.can_resume() {
                break;
            }
        }
        let closing = self.with(|connection, moment, _| connection.closing(moment));
        if closing != Closing::Open || self.closing != Closing::Half {
            self.closing = closing;
        }
    }

    fn pass_time(&mut self, s: u64) {
        self.now += Duration::from_secs(s);
        if self.connection.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.with(|connection, moment, scribe| connection.expire(moment, scribe));
        }
        self.flush();
    }

    fn end(&mut self) {
        self.connection.end_of_input();
        self.flush();
    }

    /// The deadline, in seconds since the start.
    fn deadline(&self) -> Option<u64> {
        self.connection.deadline().map(|deadline| (deadline - self.start).as_secs())
    }

    /// The statuses of the replies that have come.
    fn statuses(&self) -> Vec<u16> {
        // A body may name the version, too.
        let heads = self.got.split("HTTP/1.1 ").skip(1);
        heads.filter_map(|head| head.get(..3)?.parse().ok()).collect()
    }

    fn answer(&mut self, status: u16, body: &str) {
        let moment = Moment { now: self.now, limits: &self.limits, draining: self.draining };
        let scribe = &self.scribe;
        self.connection.answer(moment, |facts, out| Outcome::Replied {
            keep: scribe.frame(status, body, facts, out),
        });
        self.flush();
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn a_request_is_answered_and_the_connection_stays_open() {
    let mut bench = Bench::new();
    bench.send(&post("/a?b", "hello"));
    bench.send(&get("/c"));
    assert_eq!(bench.scribe.seen, ["Post /a b 2 hello", "Get /c  1 "]);
    assert_eq!(bench.statuses(), [200, 200]);
    assert_eq!(bench.closing, Closing::Open);
}

#[test]
fn every_bad_request_is_answered_and_ends_the_connection() {
    let table: &[(&str, &[u8], u16)] = &[
        ("no request", b"\x16\x03\x01\r\n", 400),
        ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
        ("both lengths", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("a long body", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413),
        ("200 GB", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000000000\r\n\r\nabc", 413),
        ("a long body that waits to be asked for", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\nExpect: 100-continue\r\n\r\n", 413),
        ("a long chunk", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n", 413),
        ("a negative chunk", b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        ("a refused body", b"POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", 401),
        ("a refused chunked body", b"POST /refused HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 401),
        ("a refused body that waits to be asked for", b"POST /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n", 401),
    ];
    for (name, input, status) in table {
        let mut bench = Bench::new();
        bench.send(input);
        // What follows must not be taken for a request, whatever the peer meant by it.
        bench.send(&get("/smuggled"));
        assert_eq!(bench.statuses(), [*status], "{name}");
        assert!(bench.got.contains("Connection: close\r\n"), "{name}");
        assert!(bench.scribe.seen.is_empty(), "{name}");
        assert_eq!(bench.closing, Closing::Half, "{name}");
        bench.end();
        assert_eq!(bench.closing, CLOSED, "{name}");
    }
}

#[test]
fn a_bad_request_split_anywhere_gets_the_same_answer() {
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(17 << 10));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(70));
    let post = |lines: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}");
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let table = [
        (post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"), 400),
        (post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"), 400),
        (post("Content-Length: +5\r\n", "hello"), 400),
        (post("Content-Length: 5x\r\n", "hello"), 400),
        (post("Content-Length: 4611686018427387904\r\n", "abc"), 400),
        (post("Content-Length: 101\r\n", "abc"), 413),
        (post("X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 501),
        (post("Content-Length : 3\r\n", "abc"), 400),
        (post("X: y\nz\r\n", ""), 400),
        (post("X: y\0z\r\n", ""), 400),
        (post("Expect: cake\r\n", ""), 417),
        (chunked("-1\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("+3\r\nabc\r\n0\r\n\r\n"), 400),
        (chunked("FFFFFFFF\r\nabc"), 413),
        (chunked("3\nabc\r\n0\r\n\r\n"), 400),
        (chunked("3\r\nabcd\r\n0\r\n\r\n"), 400),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned(), 400),
        ("GET / x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400),
        (long_line, 431),
        (many_fields, 431),
    ];
    for (request, status) in table {
        let input = [request.as_bytes(), &get("/smuggled")].concat();
        for at in 0..=input.len() {
            let mut bench = Bench::new();
            bench.send(&input[..at]);
            bench.send(&input[at..]);
            assert_eq!(bench.statuses(), [status], "{request:.80} split at {at}");
            assert!(bench.scribe.seen.is_empty(), "{request:.80} split at {at} smuggles");
        }
        let mut bench = Bench::new();
        input.iter().for_each(|byte| bench.send(&[*byte]));
        assert_eq!(bench.statuses(), [status], "{request:.80} byte by byte");
        assert!(bench.scribe.seen.is_empty(), "{request:.80} byte by byte smuggles");
    }
}

#[test]
fn a_refused_request_whose_body_is_here_leaves_the_connection_open() {
    let mut bench = Bench::new();
    let mut input = post("/refused", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    input.extend(get("/next"));
    bench.send(&input);
    assert_eq!(bench.statuses(), [401, 200]);
    assert_eq!(bench.scribe.seen, ["Get /next  1 "]);
}

#[test]
fn the_body_is_asked_for_once_its_head_is_admitted() {
    let mut bench = Bench::new();
    bench.send(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(bench.got, "HTTP/1.1 100 Continue\r\n\r\n");
    bench.send(b"hello");
    assert_eq!(bench.statuses(), [100, 200]);
    assert_eq!(bench.scribe.seen, ["Post /a  3 hello"]);
}

#[test]
fn replies_keep_the_order_of_their_requests() {
    let mut bench = Bench::new();
    let input = [get("/waiting"), get("/b"), get("/waiting"), get("/d")].concat();
    bench.send(&input);
    assert_eq!(bench.scribe.seen.len(), 1);
    assert!(!bench.connection.wants_input(), "the rest waits in the socket");
    bench.answer(201, "");
    assert_eq!(bench.statuses(), [201, 200]);
    bench.answer(202, "");
    assert_eq!(bench.statuses(), [201, 200, 202, 200]);
}

#[test]
fn who_does_not_read_is_not_served_further() {
    let mut bench = Bench::new();
    bench.receive(&get("/large").repeat(40));
    assert_eq!(bench.scribe.seen.len(), 1);
    assert!(!bench.connection.wants_input() && !bench.connection.can_resume());
    assert_eq!(bench.deadline(), Some(30));
    bench.flush();
    assert_eq!(bench.scribe.seen.len(), 40);
}

#[test]
fn a_worker_gets_the_whole_request_by_move() {
    let mut bench = Bench::new();
    bench.send(
        b"POST /worker HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    assert!(bench.scribe.dispatched.is_empty() && !bench.connection.is_busy());
    bench.send(b"2\r\nde\r\n0\r\n\r\n");
    let Parcel { bytes, head_bytes, .. } = bench.scribe.dispatched.pop().unwrap();
    assert_eq!(&bytes[head_bytes..], b"abcde");
    let peer = Peer::from(IpAddr::from(Ipv4Addr::LOCALHOST));
    let length = with_request(&bytes, head_bytes, &peer, Port::Api, |r| r.head.content_length);
    assert_eq!(length, None);
    assert!(bench.connection.is_busy());
    bench.answer(200, "done");
    assert_eq!(bench.statuses(), [200]);
}

#[test]
fn a_slow_head_and_a_slow_body_are_given_up_at_their_own_time() {
    let mut bench = Bench::new();
    assert_eq!(bench.deadline(), Some(75));
    bench.pass_time(70);
    bench.send(b"POST / HTTP/1.1\r\nHo");
    assert_eq!(bench.deadline(), Some(80));
    bench.pass_time(9);
    bench.send(b"st: a\r\nContent-Length: 5\r\n");
    assert_eq!(bench.deadline(), Some(80), "a drip moves no deadline");
    bench.send(b"\r\n");
    assert_eq!(bench.deadline(), Some(109));
    bench.pass_time(29);
    bench.send(b"hell");
    assert_eq!(bench.deadline(), Some(109), "a drip moves no deadline");
    bench.pass_time(1);
    assert_eq!(bench.statuses(), [408]);
    assert_eq!(bench.closing, Closing::Half);
    bench.pass_time(2);
    assert_eq!(bench.closing, CLOSED);

    let mut bench = Bench::new();
    bench.send(b"G");
    bench.pass_time(10);
    assert_eq!(bench.statuses(), [408]);
}

#[test]
fn an_idle_connection_is_closed_without_a_word_and_owns_no_buffer() {
    let mut bench = Bench::new();
    bench.pass_time(74);
    let mut spare = Vec::with_capacity(1000);
    bench.connection.lend(&mut spare);
    bench.send(&get("/"));
    bench.connection.give_back(&mut spare);
    assert_eq!(bench.connection.out.capacity() + bench.connection.inbox.capacity(), 0);
    assert!(spare.capacity() >= 1000);
    assert_eq!(bench.deadline(), Some(149));
    bench.pass_time(75);
    assert_eq!((bench.statuses(), bench.closing), (vec![200], CLOSED));
}

#[test]
fn a_reply_that_is_not_read_is_given_up() {
    let mut bench = Bench::new();
    bench.receive(&get("/"));
    assert_eq!(bench.deadline(), Some(30));
    bench.now += Duration::from_secs(29);
    bench.with(|connection, moment, _| connection.wrote(1, moment));
    assert_eq!(bench.deadline(), Some(30), "a drip moves no deadline");
    bench.pass_time(1);
    assert_eq!(bench.closing, CLOSED);
}

#[test]
fn who_closes_its_side_gets_what_it_asked_for() {
    let mut bench = Bench::new();
    bench.send(&[get("/a"), get("/waiting"), get("/c"), b"GET /incompl".to_vec()].concat());
    bench.end();
    assert_eq!(bench.closing, Closing::Open);
    bench.answer(201, "");
    assert_eq!(bench.statuses(), [200, 201, 200]);
    assert_eq!(bench.closing, CLOSED);
}

#[test]
fn a_busy_connection_keeps_its_place_until_the_answer_comes() {
    let mut bench = Bench::new();
    bench.send(&get("/waiting"));
    assert_eq!(bench.deadline(), None);
    bench.connection.abort();
    bench.flush();
    assert_eq!(bench.closing, Closing::Reserved);
    bench.answer(200, "");
    assert_eq!((bench.got.as_str(), bench.closing), ("", CLOSED));
}

#[test]
fn a_closing_request_is_the_last_one() {
    for last in [
        &b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"[..],
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ] {
        let mut bench = Bench::new();
        bench.send(&[last.to_vec(), get("/never")].concat());
        assert_eq!(bench.statuses(), [200]);
        assert!(bench.got.contains("Connection: close"));
        assert_eq!(bench.closing, Closing::Half);
    }
}

#[test]
fn after_the_last_reply_a_peer_is_listened_to_only_so_long() {
    let mut bench = Bench::new();
    bench.send(b"nonsense\r\n\r\n");
    assert_eq!(bench.closing, Closing::Half);
    bench.send(&vec![0; LINGER_BYTES_MAX]);
    assert_eq!(bench.closing, Closing::Half);
    bench.send(b"!");
    assert_eq!(bench.closing, CLOSED);
}

#[test]
fn when_draining_the_idle_are_closed_and_the_others_get_their_last_reply() {
    let mut idle = Bench::new();
    idle.send(&get("/"));
    idle.draining = true;
    idle.flush();
    assert_eq!(idle.closing, CLOSED);

    let mut waiting = Bench::new();
    waiting.send(&get("/waiting"));
    waiting.draining = true;
    waiting.flush();
    assert_eq!(waiting.closing, Closing::Open);
    waiting.answer(200, "");
    assert!(waiting.got.contains("Connection: close"));

    let mut sending = Bench::new();
    sending.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    sending.draining = true;
    sending.flush();
    sending.send(b"llo");
    assert!(sending.got.contains("Connection: close") && sending.got.ends_with("hello"));
}

/// A sequence of good requests and what the scribe is to see of them.
fn requests() -> impl Strategy<Value = Vec<(Vec<u8>, String)>> {
    let body = "[a-z\\r\\n]{0,40}";
    let one = (any::<bool>(), any::<bool>(), body, "[a-z]{0,8}", 0_usize..5).prop_map(
        |(chunked, lenient, body, path, fields)| {
            let extra = "X-Y: z\r\n".repeat(fields);
            let blank = if lenient { "\r\n" } else { "" };
            let (framing, sent) = if chunked {
                let (left, right) = body.split_at(body.len() / 2);
                let part = |text: &str| match text.len() {
                    0 => String::new(),
                    bytes => format!("{bytes:x};e\r\n{text}\r\n"),
                };
                let sent = format!("{}{}0\r\nT: u\r\n\r\n", part(left), part(right));
                ("Transfer-Encoding: chunked".to_owned(), sent)
            } else {
                (format!("Content-Length: {}", body.len()), body.clone())
            };
            let head =
                format!("{blank}POST /{path}?q HTTP/1.1\r\nHost: a\r\n{extra}{framing}\r\n\r\n");
            let seen = format!("Post /{path} q {} {body}", fields + 2);
            ((head + &sent).into_bytes(), seen)
        },
    );
    proptest::collection::vec(one, 1..5)
}

proptest! {
    #[test]
    fn a_request_split_anywhere_is_the_same_request(requests in requests()) {
        let input: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let seen: Vec<String> = requests.into_iter().map(|(_, seen)| seen).collect();
        for at in 0..=input.len() {
            let mut bench = Bench::new();
            bench.send(&input[..at]);
            bench.send(&input[at..]);
            prop_assert_eq!(&bench.scribe.seen, &seen, "split at {}", at);
            prop_assert_eq!(bench.statuses().len(), seen.len());
        }
    }

    #[test]
    fn requests_in_any_pieces_are_the_same_requests(requests in requests(), sizes in proptest::collection::vec(1_usize..30, 1..20)) {
        let input: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let seen: Vec<String> = requests.into_iter().map(|(_, seen)| seen).collect();
        let mut bench = Bench::new();
        let (mut rest, mut sizes) = (&input[..], sizes.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
            bench.send(piece);
            rest = after;
        }
        prop_assert_eq!(&bench.scribe.seen, &seen);
    }

    #[test]
    fn no_bytes_at_all_make_it_panic(
        parts in proptest::collection::vec(prop_oneof![
            Just(b"GET / HTTP/1.1\r\n".to_vec()), Just(b"Host: a\r\n".to_vec()), Just(b"\r\n".to_vec()),
            Just(b"Content-Length: 3\r\n".to_vec()), Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
            Just(b"3\r\nabc\r\n".to_vec()), Just(b"0\r\n\r\n".to_vec()), proptest::collection::vec(any::<u8>(), 0..20),
        ], 0..20),
        piece in 1_usize..50,
    ) {
        let mut bench = Bench::new();
        for part in parts.concat().chunks(piece) {
            bench.send(part);
        }
        bench.end();
        prop_assert_eq!(bench.closing, CLOSED);
    }
}

#[test]
fn the_date_is_that_of_the_reply() {
    let mut bench = Bench::new();
    bench.scribe.date.turn_to(SystemTime::UNIX_EPOCH);
    bench.send(&get("/"));
    assert!(bench.got.contains("Date: Thu, 01 Jan 1970 00:00:00 GMT"));
}
