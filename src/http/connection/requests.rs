//! From bytes to requests. This module is the reading half of a connection: it takes heads and bodies from what has
//! arrived and hands them on, and stops at the first request that isn't answered on the spot.

use super::super::body::Chunks;
use super::super::limits::{LARGEST_SHARE_PART, OUT_BYTES_HIGH};
use super::super::parse::{self, Fields, Length, Refusal};
use super::super::reply::Facts;
use super::super::{Method, Place, Request};
use super::exchange::{Parcel, Pending, Rest, head_of, room_for};
use super::{Connection, Moment, Outcome, Phase, Responder, Verdict, with_request};

const BODY_TOO_LARGE: Refusal = Refusal { status: 413, detail: "the body is too large" };

impl<T, S> Connection<T, S> {
    /// Takes requests from the inbox.
    pub(super) fn work_off<R>(&mut self, moment: Moment<'_>, responder: &mut R)
    where
        R: Responder<Admitted = T, Stream = S>,
    {
        let mut inbox = std::mem::take(&mut self.inbox);
        let used = self.advance(&inbox, moment, responder);
        if used < inbox.len() {
            inbox.drain(..used);
            self.inbox = inbox;
        }
    }

    /// Takes requests from `input` as long as each is answered at once. Returns how much has been taken.
    pub(super) fn advance<R>(
        &mut self,
        input: &[u8],
        moment: Moment<'_>,
        responder: &mut R,
    ) -> usize
    where
        R: Responder<Admitted = T, Stream = S>,
    {
        let mut used = 0;
        self.ripe = false;
        while used < input.len() {
            match self.phase {
                Phase::Idle if self.out.len() >= OUT_BYTES_HIGH => {
                    self.ripe = true;
                    break;
                }
                Phase::Idle => {
                    self.phase = Phase::Head;
                    self.phase_by = moment.now + moment.limits.head_time;
                }
                Phase::Head => match self.take_head(&input[used..], moment, responder) {
                    Some(taken) => used += taken,
                    None => break,
                },
                Phase::Body(_) => used += self.take_body(&input[used..], moment, responder),
                Phase::Busy(_) | Phase::Streaming { .. } => {
                    self.ripe = true;
                    break;
                }
                Phase::Last | Phase::Lingering { .. } => return input.len(),
            }
        }
        used
    }

    /// Takes a head, and its body if all of that is there, too. `None`: the head is not complete.
    fn take_head<R>(&mut self, input: &[u8], moment: Moment<'_>, responder: &mut R) -> Option<usize>
    where
        R: Responder<Admitted = T, Stream = S>,
    {
        let mut fields = Fields::new();
        // Nothing but the head needs it, and the reply is framed into a field beside it.
        let peer = self.peer.clone();
        let line = match parse::head(input, moment.limits.head_bytes_max, &mut fields) {
            Ok(Some(line)) => line,
            Ok(None) => return None,
            Err(refusal) => {
                self.refuse(refusal, false, moment, responder);
                return Some(input.len());
            }
        };
        let after = &input[line.bytes..];
        let whole = match line.length {
            Length::Known(length) => after.get(..length),
            Length::Chunked => None,
        };
        let facts = Facts {
            head_only: line.method == Method::Head,
            chunks: line.modern,
            keep: line.keep && !moment.draining,
            complete_at: moment.now,
        };
        let (length, expects_continue, bytes) = (line.length, line.expects_continue, line.bytes);
        let head = head_of(line, &fields, &peer, self.port);
        self.framing(moment);
        // A body that is not read would be taken for the next request.
        let refusal_facts = Facts { keep: facts.keep && whole.is_some(), ..facts };
        let (admitted, place, max) = match responder.admit(&head, refusal_facts, &mut self.out) {
            Verdict::Refused { keep } => {
                self.replied(keep && refusal_facts.keep, moment);
                return Some(bytes + whole.map_or(0, <[u8]>::len));
            }
            Verdict::Read { admitted, place, body_bytes_max } => {
                let share_max = moment.limits.bodies_bytes_max / LARGEST_SHARE_PART;
                (admitted, place, body_bytes_max.min(share_max))
            }
        };
        if matches!(length, Length::Known(length) if length > max) {
            self.refuse(BODY_TOO_LARGE, facts.head_only, moment, responder);
            return Some(input.len());
        }
        if let Some(body) = whole {
            let outcome = match place {
                Place::Loop => {
                    let request = Request { head, body };
                    responder.handle(&request, admitted, facts, &mut self.out)
                }
                Place::Worker => {
                    let account = responder.account(&admitted);
                    match room_for(responder.bodies(), Some(body.len()), account, moment.limits) {
                        Ok(room) => {
                            let mut copy = responder.buffer();
                            copy.extend_from_slice(&input[..bytes + body.len()]);
                            let parcel = Parcel { bytes: copy, head_bytes: bytes, admitted, room };
                            responder.dispatch(parcel, facts, &mut self.out)
                        }
                        // It is all here, so the next request can be told from it.
                        Err(refusal) => Outcome::Replied {
                            keep: responder.refuse(refusal, facts, &mut self.out),
                        },
                    }
                }
            };
            self.conclude(outcome, facts, moment);
            return Some(bytes + body.len());
        }
        let announced = match length {
            Length::Known(length) => Some(length),
            // It takes room as it grows.
            Length::Chunked => None,
        };
        let account = responder.account(&admitted);
        let room = match room_for(responder.bodies(), announced, account, moment.limits) {
            Ok(room) => room,
            Err(refusal) => {
                self.refuse(refusal, facts.head_only, moment, responder);
                self.unread = announced.unwrap_or(0);
                return Some(input.len());
            }
        };
        if expects_continue && after.is_empty() {
            self.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let mut copy = responder.buffer();
        copy.extend_from_slice(&input[..bytes]);
        let rest = match length {
            Length::Known(length) => Rest::Known(length),
            Length::Chunked => Rest::Chunked(Chunks::new(max)),
        };
        let parcel = Parcel { bytes: copy, head_bytes: bytes, admitted, room };
        let pending = Pending { parcel, place, facts, rest };
        self.phase = Phase::Body(Box::new(pending));
        self.phase_by = moment.now + moment.limits.body_time;
        Some(bytes)
    }

    /// Takes a part of a body.
    fn take_body<R>(&mut self, input: &[u8], moment: Moment<'_>, responder: &mut R) -> usize
    where
        R: Responder<Admitted = T, Stream = S>,
    {
        let Phase::Body(pending) = &mut self.phase else { return 0 };
        let (taken, complete) = match pending.take(input) {
            Ok(taken) => taken,
            Err(refusal) => {
                let head_only = pending.facts.head_only;
                self.refuse(refusal, head_only, moment, responder);
                return input.len();
            }
        };
        if complete && let Phase::Body(pending) = std::mem::replace(&mut self.phase, Phase::Idle) {
            self.framing(moment);
            let keep = pending.facts.keep && !moment.draining;
            let facts = Facts { keep, complete_at: moment.now, ..pending.facts };
            let Pending { parcel, place, .. } = *pending;
            let outcome = match place {
                Place::Loop => {
                    let out = &mut self.out;
                    let Parcel { bytes, head_bytes, admitted, room } = parcel;
                    let outcome =
                        with_request(&bytes, head_bytes, &self.peer, self.port, |request| {
                            responder.handle(request, admitted, facts, out)
                        });
                    responder.recycle(bytes);
                    drop(room);
                    outcome
                }
                Place::Worker => responder.dispatch(parcel, facts, &mut self.out),
            };
            self.conclude(outcome, facts, moment);
        }
        taken
    }

    pub(super) fn refuse<R>(
        &mut self,
        refusal: Refusal,
        head_only: bool,
        moment: Moment<'_>,
        responder: &mut R,
    ) where
        R: Responder<Admitted = T, Stream = S>,
    {
        let facts = Facts { head_only, chunks: true, keep: false, complete_at: moment.now };
        self.framing(moment);
        responder.refuse(refusal, facts, &mut self.out);
        self.replied(false, moment);
    }

    pub(super) fn conclude(&mut self, outcome: Outcome<S>, facts: Facts, moment: Moment<'_>) {
        match outcome {
            Outcome::Replied { keep } => self.replied(keep && facts.keep, moment),
            Outcome::Waiting => self.phase = Phase::Busy(facts),
            Outcome::Stream { stream, keep } => {
                let facts = Facts { keep: keep && facts.keep, ..facts };
                self.phase = Phase::Streaming { stream: Some(stream), facts, begun: true };
            }
            Outcome::Late { stream } => {
                self.phase = Phase::Streaming { stream: Some(stream), facts, begun: false };
            }
        }
    }

    pub(super) fn replied(&mut self, keep: bool, moment: Moment<'_>) {
        if keep {
            self.phase = Phase::Idle;
            self.phase_by = moment.now + moment.limits.idle_time;
        } else {
            self.phase = Phase::Last;
            self.ripe = false;
        }
    }
}
