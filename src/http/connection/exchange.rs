//! What a connection and whoever answers it say to each other. This module is the narrow waist of the front: on one
//! side bytes and deadlines, on the other the app, its arena, the workers and the mailbox.

use std::sync::Arc;
use std::time::Instant;

use super::super::body::Chunks;
use super::super::limits::{LARGEST_SHARE_PART, Limits, SMALL_BODY_BYTES};
use super::super::parse::{self, Fields, Length, Line, Refusal};
use super::super::reply::Facts;
use super::super::{Head, Headers, Peer, Place, Port, Request};
use crate::room::{Account, NoRoom, Pool, Room, Rooms};

const NO_ROOM: Refusal = Refusal {
    status: 503,
    detail: "the bodies of the requests in flight fill the room that there is for them; nothing of this one was kept",
};

const NO_SHARE: Refusal = Refusal {
    status: 503,
    detail: "the bodies of your tenant's requests in flight fill as much of the room as is left to others; nothing of this one was kept",
};

/// What holds for everything that happens to a connection in one go.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'m> {
    pub now: Instant,
    pub limits: &'m Limits,
    /// The service is stopping: every reply is the last one of its connection.
    pub draining: bool,
}

/// What is to be done with a head.
#[derive(Debug)]
pub enum Verdict<T> {
    /// Read the body, so many bytes at most.
    Read { admitted: T, place: Place, body_bytes_max: usize },
    /// The reply is framed. `keep`: the connection may be used again.
    Refused { keep: bool },
}

/// What has become of a request.
#[derive(Debug)]
pub enum Outcome<S> {
    /// The reply is framed. `keep`: the connection may be used again.
    Replied { keep: bool },
    /// The reply comes by another way.
    Waiting,
    /// The head of the reply is framed, the body comes in pieces.
    Stream { stream: Box<S>, keep: bool },
    /// Nothing is framed yet. The reply comes whole, once there is one.
    Late { stream: Box<S> },
}

/// A piece of a streamed body, and the stream if there is more.
pub type Piece<S> = (Vec<u8>, Option<Box<S>>);

/// Who answers. Replies are appended to `out`.
pub trait Responder {
    type Admitted;
    type Stream;

    /// Looks at a head.
    fn admit(
        &mut self,
        head: &Head<'_>,
        facts: Facts,
        out: &mut Vec<u8>,
    ) -> Verdict<Self::Admitted>;
    /// Handles a request here and now.
    fn handle(
        &mut self,
        request: &Request<'_>,
        admitted: Self::Admitted,
        facts: Facts,
        out: &mut Vec<u8>,
    ) -> Outcome<Self::Stream>;
    /// Sends a request to a worker.
    fn dispatch(
        &mut self,
        parcel: Parcel<Self::Admitted>,
        facts: Facts,
        out: &mut Vec<u8>,
    ) -> Outcome<Self::Stream>;
    /// Replies to what is no acceptable request, or finds no room. Returns whether the connection may be used again.
    fn refuse(&mut self, refusal: Refusal, facts: Facts, out: &mut Vec<u8>) -> bool;
    /// The room for the bodies of all connections, in bytes.
    fn bodies(&self) -> &Arc<Rooms>;
    /// Whose share of that room the body is a part of. None: it is not certain who is asking.
    fn account<'a>(&'a self, admitted: &'a Self::Admitted) -> Option<&'a Arc<Account>>;
    /// An empty buffer for a request that must be kept.
    fn buffer(&mut self) -> Vec<u8>;
    /// Takes such a buffer back.
    fn recycle(&mut self, buffer: Vec<u8>);
}

/// A request that is kept, from its head on.
pub struct Parcel<T> {
    /// The head, `head_bytes` long, and what has come of the body, decoded.
    pub bytes: Vec<u8>,
    pub head_bytes: usize,
    pub admitted: T,
    /// What the body takes up. Given back with the last of the bytes, whatever way that is.
    pub room: Room,
}

/// A request whose body is on its way.
pub(super) struct Pending<T> {
    pub(super) parcel: Parcel<T>,
    pub(super) place: Place,
    pub(super) facts: Facts,
    pub(super) rest: Rest,
}

/// How the end of a body is found.
pub(super) enum Rest {
    /// The body is so long.
    Known(usize),
    Chunked(Chunks),
}

impl<T> Pending<T> {
    /// Takes what `input` holds of the body. Returns how much that was, and whether the body is complete.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<(usize, bool), Refusal> {
        let Parcel { bytes, head_bytes, room, .. } = &mut self.parcel;
        match &mut self.rest {
            Rest::Known(length) => {
                let missing = *head_bytes + *length - bytes.len();
                let taken = missing.min(input.len());
                // The length is only a promise, so memory is taken for what has come and not for what may; and never
                // for more than will come.
                if bytes.capacity() - bytes.len() < taken {
                    bytes.reserve_exact(missing.min(bytes.len().max(taken)));
                }
                bytes.extend_from_slice(&input[..taken]);
                Ok((taken, taken == missing))
            }
            Rest::Chunked(chunks) => {
                let taken = chunks.decode(input, bytes)?;
                room.grow_to(bytes.len() - *head_bytes).map_err(refusal)?;
                Ok((taken, chunks.is_done()))
            }
        }
    }
}

/// Room for a body of this length, or for the beginning of a chunked one, or 503.
pub(super) fn room_for(
    rooms: &Arc<Rooms>,
    length: Option<usize>,
    account: Option<&Arc<Account>>,
    limits: &Limits,
) -> Result<Room, Refusal> {
    let (ceiling, pool) = match (account, length) {
        (None, _) => (limits.bodies_bytes_max / LARGEST_SHARE_PART, Pool::Bodies),
        (Some(_), Some(0..=SMALL_BODY_BYTES)) => (rooms.capacity(), Pool::SmallBodies),
        (Some(_), Some(_) | None) => (limits.bodies_bytes_max, Pool::Bodies),
    };
    let share = account.map(|account| (account, pool));
    rooms.take_below(length.unwrap_or(0), ceiling, share).map_err(refusal)
}

fn refusal(no_room: NoRoom) -> Refusal {
    match no_room {
        NoRoom::Share => NO_SHARE,
        NoRoom::Now | NoRoom::Ever => NO_ROOM,
    }
}

/// The head as the app sees it.
pub(super) fn head_of<'r>(
    line: Line<'r>,
    fields: &'r [(&'r str, &'r [u8])],
    peer: &'r Peer,
    port: Port,
) -> Head<'r> {
    let content_length = match line.length {
        Length::Known(length) => Some(length),
        Length::Chunked => None,
    };
    Head {
        method: line.method,
        path: line.path,
        query: line.query,
        headers: Headers(fields),
        content_length,
        peer: peer.address,
        certificate: peer.certificate.as_deref(),
        port,
    }
}

/// Does `work` with the request that was kept as `bytes`.
///
/// # Panics
/// When `bytes` do not start with a complete head: a bug, for they were kept only because they do.
pub fn with_request<R>(
    bytes: &[u8],
    head_bytes: usize,
    peer: &Peer,
    port: Port,
    work: impl FnOnce(&Request<'_>) -> R,
) -> R {
    let (head, body) = bytes.split_at(head_bytes);
    let mut fields = Fields::new();
    let line = parse::head(head, usize::MAX, &mut fields)
        .ok()
        .flatten()
        .expect("these bytes have been read as a head before");
    work(&Request { head: head_of(line, &fields, peer, port), body })
}
