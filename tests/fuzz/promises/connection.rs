//! What a connection promises, whatever a peer sends and however it is cut. This module drives the sans-IO connection
//! from one input: a count, so many sizes, and the bytes of the peer.
//!
//! * However the bytes are cut, the requests are the same, and so is every byte of the replies.
//! * In any order of bytes, writes, answers, time and ends, nothing panics, what is held is bounded, and nobody holds a
//!   place without a deadline.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use sentinel::domain::ids::TenantId;
use sentinel::http::connection::{
    Closing, Connection, Moment, Outcome, Parcel, Responder, Verdict, with_request,
};
use sentinel::http::limits::{Limits, OUT_BYTES_HIGH, READ_BYTES};
use sentinel::http::parse::Refusal;
use sentinel::http::reply::{self, Date, Facts};
use sentinel::http::{Head, Place, Port, Reply, Request};
use sentinel::room::{Account, Rooms};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Short enough that an input of some hundred bytes can be too long.
const HEAD_BYTES_MAX: usize = 512;
const BODY_BYTES_MAX: usize = 300;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// All that one reply of the scribe adds to its body: status line and fields.
const REPLY_HEAD_BYTES_MAX: usize = 512;
/// Byte by byte is quadratic in nothing, but there is no use in long inputs either.
const SINGLE_BYTES_MAX: usize = 1500;

/// Checks every promise with one input.
pub(crate) fn check(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else { return };
    let Some((sizes, stream)) = rest.split_at_checked(usize::from(count % 16)) else { return };
    same_however_cut(sizes, stream);
    bounded_in_any_order(sizes, stream);
}

/// Writes down what it was asked, and answers by the path.
struct Scribe {
    seen: Vec<String>,
    /// Whether heads may be refused: then what becomes of a connection depends on whether the body was there already.
    refuses: bool,
    /// Just enough for one body.
    bodies: Arc<Rooms>,
    account: Arc<Account>,
    date: Date,
}

impl Scribe {
    fn frame(&self, status: u16, body: &[u8], facts: Facts, out: &mut Vec<u8>) -> bool {
        let (headers, body) = (vec![], Cow::Borrowed(body));
        let reply = Reply { status, content_type: "text/plain", headers, body, close: false };
        reply::frame(out, &reply, facts, &self.date)
    }

    fn note(&mut self, request: &Request<'_>) {
        let head = &request.head;
        let length = head.content_length;
        assert!(length.is_none_or(|length| length == request.body.len()), "a body of its length");
        assert!(request.body.len() <= BODY_BYTES_MAX, "a body within its bound");
        assert!(head.path.starts_with('/') && head.path.is_ascii(), "{:?}", head.path);
        for (name, value) in head.headers.0 {
            assert!(!name.is_empty() && !value.contains(&b'\n') && !value.contains(&0), "{name:?}");
        }
        let (path, query, fields) = (head.path, head.query, head.headers.0);
        self.seen.push(format!("{:?} {path} {query} {fields:?} {:?}", head.method, request.body));
    }
}

impl Responder for Scribe {
    type Admitted = ();
    /// Whether its head has been framed.
    type Stream = bool;

    fn admit(&mut self, head: &Head<'_>, facts: Facts, out: &mut Vec<u8>) -> Verdict<()> {
        if self.refuses && head.path.starts_with("/r") {
            return Verdict::Refused { keep: self.frame(401, b"refused", facts, out) };
        }
        let place = if head.path.starts_with("/w") { Place::Worker } else { Place::Loop };
        Verdict::Read { admitted: (), place, body_bytes_max: BODY_BYTES_MAX }
    }

    fn handle(
        &mut self,
        request: &Request<'_>,
        (): (),
        facts: Facts,
        out: &mut Vec<u8>,
    ) -> Outcome<bool> {
        self.note(request);
        match request.head.path {
            "/l" => {
                let keep = self.frame(200, &[b'x'; OUT_BYTES_HIGH], facts, out);
                Outcome::Replied { keep }
            }
            path if path.starts_with("/a") => Outcome::Waiting,
            path if path.starts_with("/s") => {
                let keep = reply::frame_stream_head(out, 200, "text/plain", &[], facts, &self.date);
                Outcome::Stream { stream: Box::new(true), keep }
            }
            path if path.starts_with("/t") => Outcome::Late { stream: Box::new(false) },
            _ => Outcome::Replied { keep: self.frame(200, request.body, facts, out) },
        }
    }

    fn dispatch(&mut self, parcel: Parcel<()>, _: Facts, _: &mut Vec<u8>) -> Outcome<bool> {
        let Parcel { bytes, head_bytes, .. } = parcel;
        with_request(&bytes, head_bytes, &PEER.into(), Port::Api, |request| self.note(request));
        Outcome::Waiting
    }

    /// Which rule was broken first may depend on the cut, so all refusals look alike.
    fn refuse(&mut self, _: Refusal, facts: Facts, out: &mut Vec<u8>) -> bool {
        self.frame(400, b"", facts, out)
    }

    fn bodies(&self) -> &Arc<Rooms> {
        &self.bodies
    }

    fn account(&self, (): &()) -> Option<&Arc<Account>> {
        Some(&self.account)
    }

    fn buffer(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn recycle(&mut self, _: Vec<u8>) {}
}

/// A connection with its responder and a clock that is moved by hand.
struct Bench {
    connection: Connection<(), bool>,
    scribe: Scribe,
    limits: Limits,
    now: Instant,
    draining: bool,
    got: Vec<u8>,
}

impl Bench {
    fn new(refuses: bool) -> Self {
        let limits = Limits { head_bytes_max: HEAD_BYTES_MAX, ..Limits::default() };
        let now = Instant::now();
        let moment = Moment { now, limits: &limits, draining: false };
        let connection = Connection::new(PEER, Port::Api, moment);
        let date = Date::new(UNIX_EPOCH + Duration::from_secs(784_111_777));
        // A share is half of it.
        let bodies = Rooms::new(2 * BODY_BYTES_MAX);
        let account = Arc::new(Account::new(TenantId::parse("t").expect("a valid tenant")));
        let scribe = Scribe { seen: Vec::new(), refuses, bodies, account, date };
        Self { connection, scribe, limits, now, draining: false, got: Vec::new() }
    }

    fn with<R>(
        &mut self,
        act: impl FnOnce(&mut Connection<(), bool>, Moment<'_>, &mut Scribe) -> R,
    ) -> R {
        let moment = Moment { now: self.now, limits: &self.limits, draining: self.draining };
        act(&mut self.connection, moment, &mut self.scribe)
    }

    /// The peer takes up to `max` bytes.
    fn read(&mut self, max: usize) {
        let bytes = self.connection.output().len().min(max);
        self.got.extend_from_slice(&self.connection.output()[..bytes]);
        self.with(|connection, moment, _| connection.wrote(bytes, moment));
    }

    /// Finishes what somebody else works on.
    fn answer(&mut self) {
        self.with(|connection, moment, scribe| {
            connection.answer(moment, |facts, out| Outcome::Replied {
                keep: scribe.frame(202, b"answered", facts, out),
            });
        });
    }

    /// Lets a stream make its only piece, or a late reply come.
    fn stream(&mut self) {
        match self.connection.take_stream() {
            Some((begun, _)) if *begun => self.with(|connection, moment, _| {
                connection.piece(Some((b"piece".to_vec(), None)), moment);
            }),
            Some(_late) => self.answer(),
            None => {}
        }
    }

    /// Goes on until nothing more happens without the peer.
    fn settle(&mut self) -> Closing {
        loop {
            self.with(|connection, moment, scribe| connection.resume(moment, scribe));
            self.read(usize::MAX);
            self.answer();
            self.stream();
            if self.connection.output().is_empty() && !self.connection.can_resume() {
                return self.with(|connection, moment, _| connection.closing(moment));
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        if self.connection.wants_input() {
            self.with(|connection, moment, scribe| connection.receive(bytes, moment, scribe));
        }
    }
}

/// What a peer sees that sends `stream` in pieces of these sizes, over and over.
fn exchange(stream: &[u8], sizes: impl Iterator<Item = usize>) -> (Vec<String>, Vec<u8>, Closing) {
    let mut bench = Bench::new(false);
    let (mut rest, mut closing) = (stream, Closing::Open);
    for size in sizes {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        bench.send(piece);
        // Once only the end is awaited, `closing` no longer says that it is the half that closes.
        closing = match (closing, bench.settle()) {
            (Closing::Half, Closing::Open) => Closing::Half,
            (_, closing) => closing,
        };
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    drop(bench.connection);
    assert_eq!(bench.scribe.bodies.taken(), 0, "the room is given back");
    // Whether a body is asked for depends on whether it is there already.
    let mut got = Vec::with_capacity(bench.got.len());
    let mut from = 0;
    while from < bench.got.len() {
        if bench.got[from..].starts_with(CONTINUE) {
            from += CONTINUE.len();
        } else {
            got.push(bench.got[from]);
            from += 1;
        }
    }
    (bench.scribe.seen, got, closing)
}

fn same_however_cut(sizes: &[u8], stream: &[u8]) {
    // A line's end makes a connection look at a head that has no end; without one it may wait for more.
    let stream = [stream, b"\n"].concat();
    let whole = exchange(&stream, std::iter::repeat(READ_BYTES));
    if !sizes.is_empty() {
        let sizes = sizes.iter().map(|size| 1 + usize::from(*size));
        assert_eq!(exchange(&stream, sizes.cycle()), whole, "cut into pieces");
    }
    if stream.len() <= SINGLE_BYTES_MAX {
        assert_eq!(exchange(&stream, std::iter::repeat(1)), whole, "cut into bytes");
    }
}

/// Each size is also what is done next: bytes, writes, answers, time, ends.
fn bounded_in_any_order(sizes: &[u8], stream: &[u8]) {
    let mut bench = Bench::new(true);
    let mut rest = stream;
    let mut idle_steps = 0;
    for &size in sizes.iter().cycle().take(200) {
        let units = 1 + usize::from(size >> 3);
        match size & 7 {
            0..=2 => {
                let (piece, after) = rest.split_at((units * 7).min(rest.len()));
                if bench.connection.wants_input() && !piece.is_empty() {
                    bench.send(piece);
                    rest = after;
                } else {
                    idle_steps += 1;
                }
            }
            3 => bench.read(units * units),
            4 => bench.answer(),
            5 => bench.stream(),
            6 => {
                bench.now += Duration::from_secs(units as u64 * 3);
                if bench.connection.deadline().is_some_and(|deadline| deadline <= bench.now) {
                    bench.with(|connection, moment, scribe| connection.expire(moment, scribe));
                }
            }
            _ => match units {
                1 => bench.draining = true,
                2 => bench.connection.end_of_input(),
                3 => bench.connection.abort(),
                _ => bench.read(usize::MAX),
            },
        }
        bench.with(|connection, moment, scribe| connection.resume(moment, scribe));
        let bound = 2 * OUT_BYTES_HIGH + REPLY_HEAD_BYTES_MAX * (1 + READ_BYTES / 16);
        assert!(bench.connection.output().len() <= bound, "what is unwritten is bounded");
        match bench.with(|connection, moment, _| connection.closing(moment)) {
            Closing::Whole => {
                assert!(!bench.connection.is_busy() && bench.connection.output().is_empty());
                drop(bench.connection);
                assert_eq!(bench.scribe.bodies.taken(), 0, "the room is given back");
                return;
            }
            Closing::Reserved => assert!(bench.connection.is_busy(), "reserved for somebody"),
            Closing::Open | Closing::Half => {
                let elsewhere = bench.connection.is_busy();
                let streaming = !elsewhere && {
                    let stream = bench.connection.take_stream();
                    let there = stream.is_some();
                    stream.into_iter().for_each(|(back, _)| bench.connection.put_stream(back));
                    there
                };
                assert!(
                    elsewhere || streaming || bench.connection.deadline().is_some(),
                    "nobody holds a place without a deadline"
                );
            }
        }
        if idle_steps > 20 {
            return;
        }
    }
}
