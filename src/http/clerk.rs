//! Puts each request before the app and frames what it says. This module is the only place that catches panics: one
//! request at a time, so that a mistake in a handler costs that request a 500 and nobody else anything.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Instant, SystemTime};

use super::arena::Arena;
use super::connection::{Outcome, Piece, Verdict};
use super::reply::{self, Date, Facts};
use super::{
    Admission, App, Handled, Head, Lateness, Onward, Pause, Reply, Request, Unfinished, letterbox,
};
use crate::mailbox::Answer;

/// For a 503 that doesn't say when to come back.
const RETRY_AFTER_S: &str = "1";

/// What has become of a late reply.
pub(super) enum Late<A: App> {
    /// It is framed. `keep`: the connection may be used again.
    Replied {
        keep: bool,
    },
    NotYet {
        stream: Box<Unfinished<A>>,
        pause: Pause,
    },
}

/// A thread's app with what it needs to answer.
pub(super) struct Clerk<A> {
    app: A,
    arena: Arena,
    date: Date,
}

impl<A: App> Clerk<A>
where
    Unfinished<A>: 'static,
{
    pub(super) fn new(app: A, now: SystemTime) -> Self {
        Self { app, arena: Arena::new(), date: Date::new(now) }
    }

    /// Sets the clock of the `Date` field.
    pub(super) fn turn_to(&mut self, now: SystemTime) {
        self.date.turn_to(now);
    }

    pub(super) fn admit(
        &mut self,
        head: &Head<'_>,
        facts: Facts,
        out: &mut Vec<u8>,
    ) -> Verdict<A::Admitted> {
        let done = self.guarded(out, |app, arena, date, out| match app.admit(arena.bump(), head) {
            Admission::Read { admitted, place, body_bytes_max } => {
                Verdict::Read { admitted, place, body_bytes_max }
            }
            Admission::Refuse(reply) => {
                Verdict::Refused { keep: send(app, arena, date, &reply, facts, out) }
            }
        });
        done.unwrap_or_else(|| Verdict::Refused { keep: self.apologize(facts, out) })
    }

    pub(super) fn handle(
        &mut self,
        request: &Request<'_>,
        admitted: A::Admitted,
        back: &letterbox::Slip<'_, Unfinished<A>>,
        facts: Facts,
        out: &mut Vec<u8>,
    ) -> Outcome<Unfinished<A>> {
        let done = self.guarded(out, |app, arena, date, out| {
            let handled = app.handle(arena.bump(), request, admitted, back);
            // The stop signal may have come while the request was handled.
            let keep = facts.keep && !back.letterbox.is_draining();
            let facts = Facts { keep, ..facts };
            match handled {
                Handled::Reply(reply) => {
                    Outcome::Replied { keep: send(app, arena, date, &reply, facts, out) }
                }
                Handled::Waiting => Outcome::Waiting,
                Handled::Late(late) => Outcome::Late { stream: Box::new(Unfinished::Reply(late)) },
                Handled::Stream { status, content_type, headers, stream } => {
                    let keep =
                        reply::frame_stream_head(out, status, content_type, &headers, facts, date);
                    count(app, arena, status, facts);
                    if facts.head_only {
                        Outcome::Replied { keep }
                    } else {
                        Outcome::Stream { stream: Box::new(Unfinished::Body(stream)), keep }
                    }
                }
            }
        });
        done.unwrap_or_else(|| Outcome::Replied { keep: self.apologize(facts, out) })
    }

    /// Returns whether the connection may be used again.
    pub(super) fn complete(
        &mut self,
        context: Box<dyn Any + Send>,
        answer: Answer,
        facts: Facts,
        out: &mut Vec<u8>,
    ) -> bool {
        let done = self.guarded(out, |app, arena, date, out| {
            let reply = app.complete(arena.bump(), context, answer);
            send(app, arena, date, &reply, facts, out)
        });
        done.unwrap_or_else(|| self.apologize(facts, out))
    }

    /// The next piece of a streamed body, and how it goes on. `None`: it can't be made.
    pub(super) fn more(&mut self, stream: A::Stream) -> Option<(Piece<Unfinished<A>>, Onward)> {
        let piece = self.guarded(&mut Vec::new(), |app, _, _, _| {
            let (bytes, more) = app.more(stream);
            let onward = more.as_ref().map_or_else(Onward::default, |stream| app.onward(stream));
            ((bytes, more.map(|stream| Box::new(Unfinished::Body(stream)))), onward)
        });
        if piece.is_none() {
            log::error!("a streamed body panicked and is broken off");
        }
        piece
    }

    /// The reply that was to come late, if it is there by now.
    pub(super) fn late(&mut self, late: A::Late, facts: Facts, out: &mut Vec<u8>) -> Late<A> {
        // How long it has waited was the wish of whoever asked.
        let facts = Facts { complete_at: Instant::now(), ..facts };
        let done = self.guarded(out, |app, arena, date, out| match app.late(arena.bump(), late) {
            Lateness::Reply(reply) => {
                Late::Replied { keep: send(app, arena, date, &reply, facts, out) }
            }
            Lateness::NotYet(late, pause) => {
                Late::NotYet { stream: Box::new(Unfinished::Reply(late)), pause }
            }
        });
        done.unwrap_or_else(|| Late::Replied { keep: self.apologize(facts, out) })
    }

    /// Returns whether the connection may be used again.
    pub(super) fn refuse(
        &mut self,
        status: u16,
        detail: &'static str,
        facts: Facts,
        out: &mut Vec<u8>,
    ) -> bool {
        let done = self.guarded(out, |app, arena, date, out| {
            let mut reply = app.refuse(arena.bump(), status, detail);
            let says_when =
                reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
            if status == 503 && !says_when {
                reply.headers.push(("Retry-After", Cow::Borrowed(RETRY_AFTER_S)));
            }
            send(app, arena, date, &reply, facts, out)
        });
        done.unwrap_or_else(|| {
            // The app can't even say no: the barest reply that is one.
            log::error!("the app panicked while it refused a request with {status}");
            let (content_type, headers, body) = ("", Vec::new(), Cow::Borrowed(&b""[..]));
            let reply = Reply { status: 500, content_type, headers, body, close: true };
            reply::frame(out, &reply, facts, &self.date)
        })
    }

    pub(super) fn end_turn(&mut self) {
        if self.guarded(&mut Vec::new(), |app, _, _, _| app.end_turn()).is_none() {
            log::error!("the app panicked between two turns");
        }
    }

    /// Answers a request whose handler panicked. What it left behind is unknown, so the connection ends.
    fn apologize(&mut self, facts: Facts, out: &mut Vec<u8>) -> bool {
        self.refuse(500, "the request could not be handled", Facts { keep: false, ..facts }, out)
    }

    /// Does `work`, undoes its output if it panics, and empties the arena either way.
    ///
    /// The app is used again after a panic: its state between two requests is a read session and counters, and it
    /// must not leave either half changed across a call that may panic.
    fn guarded<R>(
        &mut self,
        out: &mut Vec<u8>,
        work: impl FnOnce(&mut A, &Arena, &Date, &mut Vec<u8>) -> R,
    ) -> Option<R> {
        let Self { app, arena, date } = self;
        let mark = out.len();
        let done = catch_unwind(AssertUnwindSafe(|| work(app, arena, date, out)));
        self.arena.clear();
        if done.is_err() {
            out.truncate(mark);
        }
        done.ok()
    }
}

/// Frames and counts a reply. Returns whether the connection may be used again.
fn send<A: App>(
    app: &mut A,
    arena: &Arena,
    date: &Date,
    reply: &Reply<'_>,
    facts: Facts,
    out: &mut Vec<u8>,
) -> bool {
    let keep = reply::frame(out, reply, facts, date);
    count(app, arena, reply.status, facts);
    keep
}

fn count<A: App>(app: &mut A, arena: &Arena, status: u16, facts: Facts) {
    let micros = u64::try_from(facts.complete_at.elapsed().as_micros()).unwrap_or(u64::MAX);
    app.replied(status, micros, arena.used());
}
