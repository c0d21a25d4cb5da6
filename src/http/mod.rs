//! The face of the service: our own HTTP front over poll loops. This module is the seam between front and routes.
//!
//! The front knows bytes, deadlines and limits; it does not know what a process is. The [`App`] knows routes and
//! knows no sockets. One `App` lives on each poll loop and on each worker, with its own read session.

pub mod auth;
pub mod body;
pub mod connection;
pub mod front;
pub mod handshakes;
pub mod limits;
pub mod parse;
pub mod reply;
pub mod turns;
pub mod worker;

mod accept;
mod arena;
mod clerk;
mod desk;
mod gate;
mod letterbox;
mod poll_loop;
mod timers;
mod transport;

use std::any::Any;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bumpalo::Bump;
pub use tiny_http::Method;

use crate::certificates::PeerCertificate;
use crate::live::Subscription;
use crate::mailbox::{Answer, ReplyTo};
use crate::room::Account;

/// Which listener a connection came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Api,
    Metrics,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: IpAddr,
    /// What it has proven in the handshake; None without TLS, and where it has shown none.
    pub certificate: Option<Arc<PeerCertificate>>,
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self { address, certificate: None }
    }
}

/// The head of a request: complete, checked, body still to come.
#[derive(Debug)]
pub struct Head<'r> {
    pub method: Method,
    /// As sent, still percent-encoded, without the query.
    pub path: &'r str,
    /// As sent, without the question mark; empty where there is none.
    pub query: &'r str,
    pub headers: Headers<'r>,
    /// None: chunked.
    pub content_length: Option<usize>,
    pub peer: IpAddr,
    /// What the peer has proven with TLS. It stands in for no token.
    pub certificate: Option<&'r PeerCertificate>,
    pub port: Port,
}

/// Header fields in the order sent.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'r>(pub &'r [(&'r str, &'r [u8])]);

impl<'r> Headers<'r> {
    /// The value of the first field called `name` (any case), without surrounding blanks, if it is visible ASCII or UTF-8.
    pub fn get(&self, name: &str) -> Option<&'r str> {
        let (_, value) = self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok().map(str::trim)
    }

    /// The value of the only field called `name`, for what its sender relies on: a second one and bytes that are no text
    /// must not pass for none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn only(&self, name: &str) -> Result<Option<&'r str>, &'static str> {
        match (self.count(name), self.get(name)) {
            (0, _) => Ok(None),
            (1, Some(value)) => Ok(Some(value)),
            (1, None) => Err("is not UTF-8"),
            _ => Err("is there more than once"),
        }
    }

    /// How many fields are called `name`.
    pub fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)).count()
    }
}

/// A complete request.
#[derive(Debug)]
pub struct Request<'r> {
    pub head: Head<'r>,
    pub body: &'r [u8],
}

/// Where a request is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the poll loop: certain to take less than about 100 microseconds.
    Loop,
    /// On a worker.
    Worker,
}

/// What the app says to a head.
pub enum Admission<'a, T> {
    /// Read the body, `body_bytes_max` at most (413 above), then hand the request to `place` with `admitted`.
    Read { admitted: T, place: Place, body_bytes_max: usize },
    /// Answer now. The body is not read.
    Refuse(Reply<'a>),
}

/// A whole reply. Strings and bodies may live in the arena of the thread that made it.
#[derive(Debug)]
pub struct Reply<'a> {
    pub status: u16,
    /// Empty: no such field.
    pub content_type: &'static str,
    /// Further fields. Values hold no line breaks: the front drops a field whose value does.
    pub headers: Vec<(&'static str, Cow<'a, str>)>,
    pub body: Cow<'a, [u8]>,
    /// Close the connection after it.
    pub close: bool,
}

/// What the app does with a request.
pub enum Handled<'a, S, L> {
    Reply(Reply<'a>),
    /// The answer comes through the mailbox, to the address in the [`ReplyTo`] that the request was given.
    Waiting,
    /// A body in pieces (chunked): the head now, then [`App::more`] on a worker for each piece, as the peer reads.
    Stream {
        status: u16,
        content_type: &'static str,
        headers: Vec<(&'static str, Cow<'a, str>)>,
        stream: S,
    },
    /// There is nothing to say yet, not even a status: [`App::late`] on a worker, until it has the reply.
    Late(L),
}

/// What a late reply has come to.
pub enum Lateness<'a, L> {
    Reply(Reply<'a>),
    /// Not yet: to be asked again after the pause.
    NotYet(L, Pause),
}

/// What is left of an exchange that does not end with its request.
pub(super) enum Unfinished<A: App> {
    /// More of the body.
    Body(A::Stream),
    /// The whole reply.
    Reply(A::Late),
}

/// How a stream goes on after a piece. By default it makes its next piece as soon as the peer has taken this one.
#[derive(Default)]
pub struct Onward {
    /// Set where there is nothing more to say for now: no piece is asked for until there is news.
    pub pause: Option<Pause>,
    /// Set for a stream that has no end of its own.
    pub endless: Option<&'static Endless>,
}

/// What a stream without further words waits for, or a late reply. No worker waits with it.
pub struct Pause {
    pub news: Arc<Subscription>,
    /// When it is asked again although there is no news. So it is at the stop, unless the stream is endless.
    pub until: Option<Instant>,
}

/// What is said in a stream that has no end of its own when it has nothing to say. Each is a whole unit of its media
/// type, so that it may follow any piece.
#[derive(Debug)]
pub struct Endless {
    /// After some silence, so that both ends notice when the other is gone.
    pub sign_of_life: &'static [u8],
    /// The last words when the service stops.
    pub stopping: &'static [u8],
    /// The last words to a peer that does not keep up.
    pub too_slow: &'static [u8],
}

/// Makes the return address of the exchange at hand, with what is needed to finish it.
///
/// Whoever gets it answers exactly once: the connection waits for that and is neither closed nor timed out before.
pub trait ReturnAddress {
    fn reply_to(&self, context: Box<dyn Any + Send>) -> ReplyTo;
}

/// The routes, as the front sees them. One lives on each loop and each worker thread.
pub trait App {
    /// What is carried from the head to the request: the route found, who is asking.
    type Admitted: Send + 'static;
    /// Where a streamed body stands.
    type Stream: Send + 'static;
    /// What a late reply waits for.
    type Late: Send + 'static;

    /// Looks at a head: route, method, token, scope. Must be quick; it always runs on the loop.
    fn admit<'a>(&mut self, arena: &'a Bump, head: &Head<'_>) -> Admission<'a, Self::Admitted>;
    /// Whose share of the room for bodies the body of a request is a part of. None: it is not certain who is asking.
    fn account(admitted: &Self::Admitted) -> Option<&Arc<Account>>;
    /// Handles a complete request.
    fn handle<'a>(
        &mut self,
        arena: &'a Bump,
        request: &Request<'_>,
        admitted: Self::Admitted,
        back: &dyn ReturnAddress,
    ) -> Handled<'a, Self::Stream, Self::Late>;
    /// Turns the answer of another thread into the reply. Runs on the loop.
    fn complete<'a>(
        &mut self,
        arena: &'a Bump,
        context: Box<dyn Any + Send>,
        answer: Answer,
    ) -> Reply<'a>;
    /// The next piece of a streamed body, and whether there is more. Runs on a worker, any worker, once the peer has
    /// taken the piece before. A piece that isn't taken in the time for writing ends the connection, so some 64 KiB to
    /// 256 KiB are a good size.
    fn more(&mut self, stream: Self::Stream) -> (Vec<u8>, Option<Self::Stream>);
    /// How `stream` goes on after the piece it has just made.
    fn onward(&self, _stream: &Self::Stream) -> Onward {
        Onward::default()
    }
    /// The reply that was to come late, if it is there. Runs on a worker, any worker: at once, after each news, and
    /// when its pause is over.
    fn late<'a>(&mut self, arena: &'a Bump, late: Self::Late) -> Lateness<'a, Self::Late>;
    /// The reply to bytes that are no acceptable request: 400, 408, 413, 417, 431, 501; to one that panicked: 500, which
    /// the app logs, since it knows whose request it was; and to what there is no room for: 503, which gets a
    /// `Retry-After` if the reply has none.
    fn refuse<'a>(&mut self, arena: &'a Bump, status: u16, detail: &'static str) -> Reply<'a>;
    /// A reply has been framed: for the metrics. `micros` since the request was complete, for a late one since it was
    /// asked for the last time; `arena_bytes` used by it.
    fn replied(&mut self, status: u16, micros: u64, arena_bytes: usize);
    /// The loop has done everything that was ready: give up the read snapshot.
    fn end_turn(&mut self);
}
