//! One connection without its socket. This module takes bytes and the time, hands complete requests to a
//! [`Responder`], collects the bytes of the replies and names its next deadline; it never waits and never reads a clock.
//!
//! # What must stay true
//!
//! * One request is in flight at a time, so replies leave in the order of their requests. What arrives meanwhile
//!   waits, unread in the socket but for the rest of the read at hand.
//! * Every deadline is absolute: a peer that sends or takes one byte at a time gains nothing.
//! * A connection that is busy is never over: its place is kept until the answer has come back.
//! * Nothing is read or answered while earlier output is unwritten, so a peer that takes nothing gives nothing, and the
//!   output is bounded by one read's requests, [`super::limits::OUT_BYTES_HIGH`] and one reply.
//! * A stream that rests has said everything there is; news, its time or the stop end the rest. It is never both at rest
//!   and elsewhere.
//! * An idle connection owns no buffer: input comes in the loop's scratch, output leaves in a lent buffer.
//! * A body is kept only with room for it ([`Responder::bodies`]), and the room goes the way of the body's bytes. What
//!   is handled straight out of the scratch needs none.

mod exchange;
mod requests;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use exchange::Pending;
pub use exchange::{Moment, Outcome, Parcel, Piece, Responder, Verdict, with_request};

use super::limits::{LINGER_BYTES_MAX, SPARE_BYTES_MAX};
use super::parse::Refusal;
use super::reply::{self, Facts};
use super::{Endless, Peer, Port};
use crate::certificates::PeerCertificate;

const HEAD_TOO_SLOW: Refusal = Refusal { status: 408, detail: "the head did not arrive in time" };
const BODY_TOO_SLOW: Refusal = Refusal { status: 408, detail: "the body did not arrive in time" };

/// Where a connection stands.
enum Phase<T, S> {
    /// Between requests.
    Idle,
    /// Some bytes of a head are here.
    Head,
    /// The head is admitted, the body is on its way.
    Body(Box<Pending<T>>),
    /// The request is elsewhere, and so will be its reply.
    Busy(Facts),
    /// A body leaves in pieces. The stream is absent while a worker makes a piece.
    /// `begun`: its head has been framed; if not, the reply comes whole.
    Streaming { stream: Option<Box<S>>, facts: Facts, begun: bool },
    /// Nothing more is answered; what is pending is still written.
    Last,
    /// Our side is closed; so many bytes are still read over, for the peer to see the last reply.
    Lingering { left: usize },
}

/// What the owner of the socket is to do about its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    Open,
    /// Close the writing side and go on reading.
    Half,
    /// Close the socket and forget the connection.
    Whole,
    /// Close the socket, but keep the place: somebody still works for it.
    Reserved,
}

/// A connection. `T` is carried from a head to its request, `S` is where a streamed body stands.
pub struct Connection<T, S> {
    peer: Peer,
    port: Port,
    phase: Phase<T, S>,
    /// Bytes that no request has taken yet.
    inbox: Vec<u8>,
    /// The inbox may hold a complete request: it stopped for another reason than lack of bytes.
    ripe: bool,
    out: Vec<u8>,
    /// So much of `out` has been written.
    written: usize,
    /// The deadline of the phase. Means nothing while the request or the stream is elsewhere.
    phase_by: Instant,
    /// When everything in `out` must have been written.
    write_by: Instant,
    /// The peer has closed its side.
    ended: bool,
    /// The socket is of no more use.
    gone: bool,
    /// The stream waits for news.
    resting: bool,
    /// When it waits no longer. Means nothing while the stream does not rest.
    rest_until: Option<Instant>,
    /// What is said in the stream besides its pieces, if it has no end of its own.
    endless: Option<&'static Endless>,
    /// It ends in the middle of something, and the peer must be able to tell.
    broken: bool,
    /// What the peer goes on sending although it has its reply, as far as that is known.
    unread: usize,
}

impl<T, S> Connection<T, S> {
    /// A connection that has just been accepted.
    pub fn new(peer: impl Into<Peer>, port: Port, moment: Moment<'_>) -> Self {
        Self {
            peer: peer.into(),
            port,
            phase: Phase::Idle,
            inbox: Vec::new(),
            ripe: false,
            out: Vec::new(),
            written: 0,
            phase_by: moment.now + moment.limits.idle_time,
            write_by: moment.now,
            ended: false,
            gone: false,
            resting: false,
            rest_until: None,
            endless: None,
            broken: false,
            unread: 0,
        }
    }

    /// Takes the certificate that the peer has proven, before anything that it says afterwards.
    pub fn identify(&mut self, certificate: Arc<PeerCertificate>) {
        self.peer.certificate = Some(certificate);
    }

    /// Whether the peer has got everything that it was to get.
    pub fn ends_well(&self) -> bool {
        self.out.is_empty() && !self.broken
    }

    /// Lends `spare` for output, if there is no buffer yet.
    pub fn lend(&mut self, spare: &mut Vec<u8>) {
        if self.out.capacity() == 0 {
            std::mem::swap(&mut self.out, spare);
        }
    }

    /// Gives the lent buffer back, if everything has been written.
    pub fn give_back(&mut self, spare: &mut Vec<u8>) {
        if self.out.is_empty() {
            let buffer = std::mem::take(&mut self.out);
            if buffer.capacity() > spare.capacity() && buffer.capacity() <= SPARE_BYTES_MAX {
                *spare = buffer;
            }
        }
    }

    /// Whether bytes from the socket are of use now.
    pub fn wants_input(&self) -> bool {
        let open = match self.phase {
            Phase::Idle | Phase::Head | Phase::Body(_) => !self.ripe && self.out.is_empty(),
            Phase::Lingering { .. } => true,
            // Only to see its end: who sends another request meanwhile is not read any further.
            Phase::Streaming { .. } => self.resting && self.inbox.is_empty(),
            Phase::Busy(_) | Phase::Last => false,
        };
        open && !self.ended && !self.gone
    }

    /// Takes bytes that have arrived.
    pub fn receive<R>(&mut self, bytes: &[u8], moment: Moment<'_>, responder: &mut R)
    where
        R: Responder<Admitted = T, Stream = S>,
    {
        if let Phase::Lingering { left } = &mut self.phase {
            match left.checked_sub(bytes.len()) {
                Some(less) => *left = less,
                None => self.gone = true,
            }
        } else if self.inbox.is_empty() {
            let used = self.advance(bytes, moment, responder);
            self.inbox.extend_from_slice(&bytes[used..]);
        } else {
            self.inbox.extend_from_slice(bytes);
            // A head is only looked at again when a line of it has come to its end.
            let worth = memchr::memchr(b'\n', bytes).is_some()
                || self.inbox.len() >= moment.limits.head_bytes_max;
            if worth || !matches!(self.phase, Phase::Head) {
                self.work_off(moment, responder);
            }
        }
    }

    /// Goes on with what has arrived before and had to wait.
    pub fn resume<R>(&mut self, moment: Moment<'_>, responder: &mut R)
    where
        R: Responder<Admitted = T, Stream = S>,
    {
        if self.can_resume() {
            self.work_off(moment, responder);
        }
        self.settle();
    }

    /// Whether [`Self::resume`] would do anything.
    pub fn can_resume(&self) -> bool {
        self.ripe && matches!(self.phase, Phase::Idle) && self.out.is_empty() && !self.gone
    }

    /// The peer has closed its side. What it has asked for before is still answered.
    pub fn end_of_input(&mut self) {
        self.ended = true;
        // There is no last reply to wait for.
        if self.resting && self.endless.is_some() {
            self.gone = true;
        }
        self.settle();
    }

    /// The socket has failed.
    pub fn abort(&mut self) {
        self.gone = true;
        self.broken = true;
    }

    /// Bytes for the socket.
    pub fn output(&self) -> &[u8] {
        if self.gone { &[] } else { &self.out[self.written..] }
    }

    /// So many bytes of [`Self::output`] have been written.
    pub fn wrote(&mut self, bytes: usize, moment: Moment<'_>) {
        self.written += bytes;
        if self.written == self.out.len() {
            self.written = 0;
            self.out.clear();
            if matches!(self.phase, Phase::Idle) {
                self.phase_by = moment.now + moment.limits.idle_time;
            }
        }
    }

    /// What the owner of the socket is to do now, after writing what could be written.
    pub fn closing(&mut self, moment: Moment<'_>) -> Closing {
        let idle = matches!(self.phase, Phase::Idle) && !self.ripe && self.out.is_empty();
        if idle && moment.draining {
            self.gone = true;
        }
        if matches!(self.phase, Phase::Last) && self.out.is_empty() && !self.gone {
            self.inbox = Vec::new();
            if !self.ended {
                self.phase = Phase::Lingering { left: self.unread.max(LINGER_BYTES_MAX) };
                self.phase_by = moment.now + moment.limits.linger_time;
                return Closing::Half;
            }
            self.gone = true;
        }
        if matches!(self.phase, Phase::Lingering { .. }) && self.ended {
            self.gone = true;
        }
        match (self.gone, self.is_busy()) {
            (false, _) => Closing::Open,
            (true, false) => Closing::Whole,
            (true, true) => Closing::Reserved,
        }
    }

    /// Whether somebody else works for this connection, so that its place must be kept.
    pub fn is_busy(&self) -> bool {
        matches!(self.phase, Phase::Busy(_) | Phase::Streaming { stream: None, .. })
    }

    /// When [`Self::expire`] is due next, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let phase_by = match self.phase {
            Phase::Idle if self.out.is_empty() => Some(self.phase_by),
            Phase::Head | Phase::Body(_) | Phase::Lingering { .. } => Some(self.phase_by),
            Phase::Streaming { .. } if self.resting && self.out.is_empty() => Some(self.phase_by),
            Phase::Idle | Phase::Busy(_) | Phase::Streaming { .. } | Phase::Last => None,
        };
        let write_by = (!self.out.is_empty()).then_some(self.write_by);
        if self.gone { None } else { phase_by.into_iter().chain(write_by).min() }
    }

    /// Does what is due at a deadline that has passed.
    pub fn expire<R>(&mut self, moment: Moment<'_>, responder: &mut R)
    where
        R: Responder<Admitted = T, Stream = S>,
    {
        if !self.out.is_empty() && self.write_by <= moment.now {
            match self.endless {
                // It may yet read what has been sent, and this with it.
                Some(endless) if matches!(self.phase, Phase::Streaming { .. }) => {
                    self.say_last(endless.too_slow, moment);
                    self.write_by = moment.now + moment.limits.linger_time;
                }
                _ => self.gone = true,
            }
        } else if self.phase_by <= moment.now {
            match self.phase {
                Phase::Idle if self.out.is_empty() => self.gone = true,
                Phase::Lingering { .. } => self.gone = true,
                Phase::Head => self.refuse(HEAD_TOO_SLOW, false, moment, responder),
                Phase::Body(_) => self.refuse(BODY_TOO_SLOW, false, moment, responder),
                Phase::Streaming { .. } if self.resting && self.out.is_empty() => {
                    self.break_silence(moment);
                }
                Phase::Idle | Phase::Busy(_) | Phase::Streaming { .. } | Phase::Last => {}
            }
        }
    }

    /// Takes the answer of the request in flight: `frame` appends the reply and says whether the connection may be
    /// used again, and where a streamed body stands.
    pub fn answer(
        &mut self,
        moment: Moment<'_>,
        frame: impl FnOnce(Facts, &mut Vec<u8>) -> Outcome<S>,
    ) {
        let facts = match self.phase {
            Phase::Busy(facts) => facts,
            Phase::Streaming { stream: None, facts, begun: false } => facts,
            _ => return,
        };
        let facts = Facts { keep: facts.keep && !moment.draining, ..facts };
        self.framing(moment);
        let outcome = frame(facts, &mut self.out);
        self.conclude(outcome, facts, moment);
    }

    /// The stream that is to make its next piece, once the last one has left. It comes back by [`Self::piece`]; what
    /// has no head yet by [`Self::answer`] or [`Self::put_stream`].
    pub fn take_stream(&mut self) -> Option<(Box<S>, Facts)> {
        match &mut self.phase {
            Phase::Streaming { stream, facts, .. }
                if !self.resting && self.out.is_empty() && !self.gone =>
            {
                let facts = *facts;
                stream.take().map(|stream| (stream, facts))
            }
            _ => None,
        }
    }

    /// Puts a stream back that could not be worked on, or has nothing to say yet.
    pub fn put_stream(&mut self, back: Box<S>) {
        if let Phase::Streaming { stream, .. } = &mut self.phase {
            *stream = Some(back);
        }
    }

    /// Takes a piece of a streamed body, and the stream if there is more. `None`: it broke off.
    pub fn piece(&mut self, piece: Option<Piece<S>>, moment: Moment<'_>) {
        let Phase::Streaming { facts, begun, .. } = self.phase else { return };
        let Some((bytes, more)) = piece else {
            // The missing end tells the peer that this is not all.
            self.phase = Phase::Last;
            self.gone = true;
            self.broken = true;
            return;
        };
        self.framing(moment);
        reply::frame_piece(&mut self.out, &bytes, more.is_none(), facts.chunks);
        match more {
            Some(stream) => self.phase = Phase::Streaming { stream: Some(stream), facts, begun },
            None => {
                self.endless = None;
                self.replied(facts.keep && !moment.draining, moment);
            }
        }
    }

    /// Says whether the stream has no end of its own.
    pub fn go_on(&mut self, endless: Option<&'static Endless>) {
        if matches!(self.phase, Phase::Streaming { .. }) {
            self.endless = endless;
        }
    }

    /// Lets the stream rest until [`Self::end_rest`] or `until`.
    pub fn rest(&mut self, until: Option<Instant>, moment: Moment<'_>) {
        if matches!(self.phase, Phase::Streaming { stream: Some(_), .. }) {
            self.resting = true;
            self.rest_until = until;
            self.phase_by = self.silent_until(moment);
            if self.ended && self.endless.is_some() {
                self.gone = true;
            }
        }
    }

    /// Lets the stream make its next piece.
    pub fn end_rest(&mut self) {
        self.resting = false;
    }

    /// Ends a stream that would not come to its end before the service does: one without an end with its last words,
    /// one at rest with the piece that it makes now.
    pub fn end_stream(&mut self, moment: Moment<'_>) {
        self.resting = false;
        if let (Phase::Streaming { stream: Some(_), .. }, Some(endless)) =
            (&self.phase, self.endless)
        {
            self.say_last(endless.stopping, moment);
        }
    }

    fn silent_until(&self, moment: Moment<'_>) -> Instant {
        let word = self.endless.map(|_| moment.now + moment.limits.silence_time);
        // Every rest has an end: a stream that is not endless says until when.
        let end = word.into_iter().chain(self.rest_until).min();
        end.unwrap_or(moment.now + moment.limits.silence_time)
    }

    /// The silence has lasted as long as it may.
    fn break_silence(&mut self, moment: Moment<'_>) {
        let is_over = self.rest_until.is_some_and(|until| until <= moment.now);
        match (self.endless, &self.phase) {
            (Some(endless), Phase::Streaming { facts, .. }) if !is_over => {
                let chunks = facts.chunks;
                self.framing(moment);
                reply::frame_piece(&mut self.out, endless.sign_of_life, false, chunks);
                self.phase_by = self.silent_until(moment);
            }
            _ => self.resting = false,
        }
    }

    /// Ends the stream with these words, behind whatever is still unwritten.
    fn say_last(&mut self, words: &[u8], moment: Moment<'_>) {
        let Phase::Streaming { facts, .. } = self.phase else { return };
        self.framing(moment);
        reply::frame_piece(&mut self.out, words, true, facts.chunks);
        self.endless = None;
        self.resting = false;
        self.replied(false, moment);
    }

    /// Called before bytes are appended to `out`: an empty buffer's deadline begins now, a fuller one's has begun.
    fn framing(&mut self, moment: Moment<'_>) {
        if self.out.is_empty() {
            self.write_by = moment.now + moment.limits.write_time;
        }
    }

    /// After the peer's end, what is incomplete stays incomplete.
    fn settle(&mut self) {
        let waits_for_input = matches!(self.phase, Phase::Idle | Phase::Head | Phase::Body(_));
        if self.ended && waits_for_input && !self.ripe {
            self.phase = Phase::Last;
        }
    }
}
