//! How a request that brings something is handed on. This module takes the room that it needs, opens its spans, and
//! posts it to the thread that makes it durable.

use std::sync::Arc;

use super::problem::{Kind, Problem};
use super::{Desk, Exchange, Waiting};
use crate::domain::event::Envelope;
use crate::domain::log_row::LogRow;
use crate::intake::{Posting, payload_bytes};
use crate::log_writer::LogPosting;
use crate::mailbox::ReplyTo;
use crate::room::{Account, Load, NoRoom, Pool, Room, Rooms};
use crate::store::WriteState;
use crate::telemetry::traces::{self, Durable, Opened, Receiving};

const LOG_QUEUE_FULL: &str = "the log queue is full; nothing of this request was kept";

impl Desk {
    /// Opens the spans of a request that brings `envelopes`. None: it is not recorded.
    pub(super) fn open(
        &self,
        exchange: &Exchange<'_, '_>,
        envelopes: &mut [Envelope],
    ) -> (Option<Box<Receiving>>, Option<Box<Durable>>) {
        let Some((tracer, begun)) = self.shared.tracer.as_ref().zip(exchange.begun) else {
            return (None, None);
        };
        let Exchange { route, trace, .. } = *exchange;
        let (method, route) = (route.method.as_str(), route.path);
        let request = traces::Request { method, route, begun, trace };
        match tracer.open(request, envelopes) {
            Some(Opened { receiving, durable }) => (Some(receiving), Some(durable)),
            None => (None, None),
        }
    }

    /// Hands envelopes of `account` to the intake thread, which answers to `reply`. What is refused here is told to the
    /// span of the request, since nobody else will.
    pub(super) fn post(
        &self,
        account: &Arc<Account>,
        envelopes: Vec<Envelope>,
        traced: Option<Box<Durable>>,
        mut reply: ReplyTo,
    ) -> Result<(), Problem> {
        let room = match self.room(account, &envelopes) {
            Ok(room) => Some(room),
            Err(problem) => return Err(refused(&mut reply, problem)),
        };
        let posting = Posting { envelopes, reply, room, traced };
        self.shared.postings.try_send(posting).map_err(|unsent| {
            let problem = Problem::new(
                Kind::Unavailable,
                "the queue is full; nothing of this request was kept",
            );
            refused(&mut unsent.into_inner().reply, problem)
        })
    }

    /// Room for these events on their way to the intake thread.
    fn room(&self, account: &Arc<Account>, envelopes: &[Envelope]) -> Result<Load, Problem> {
        if let WriteState::Closed(why) = self.shared.store.write_state() {
            return Err(Problem::new(
                Kind::Unavailable,
                format!("the store takes no writes: {why}"),
            ));
        }
        let rooms = &self.shared.event_rooms;
        let entries =
            rooms.take_for(envelopes.len(), account, Pool::Events).map_err(|no_room| {
                let full = "the queue is full; nothing of this request was kept";
                let what = "events than one tenant's part of the queue holds";
                no_room_problem(no_room, rooms, full, what)
            })?;
        let bytes = self.payload_room(account, payload_bytes(envelopes))?;
        Ok(Load { entries, bytes })
    }

    /// Why log rows are not taken now, and counts `rows` of them as shed. None: they are taken.
    pub(super) fn sheds_logs(&self, rows: usize) -> Option<Problem> {
        match self.shared.store.write_state() {
            WriteState::Open => None,
            WriteState::SheddingLogs(why) | WriteState::Closed(why) => {
                self.shared.metrics.log_rows_shed.inc_by(rows as u64);
                let detail = format!("log rows are not taken: {why}");
                Some(Problem::new(Kind::Unavailable, detail))
            }
        }
    }

    /// Room for these log rows on their way to the log writer.
    pub(super) fn log_room(
        &self,
        account: &Arc<Account>,
        rows: &[LogRow],
    ) -> Result<Load, Problem> {
        let rooms = &self.shared.log_rooms;
        let entries = rooms.take_for(rows.len(), account, Pool::LogRows).map_err(|no_room| {
            let what = "log rows than one tenant's part of the queue holds";
            no_room_problem(no_room, rooms, LOG_QUEUE_FULL, what)
        })?;
        let held = rows.iter().map(LogRow::bytes).sum();
        let bytes = self.payload_room(account, held)?;
        Ok(Load { entries, bytes })
    }

    /// Room for what a request brings until it is durable.
    fn payload_room(&self, account: &Arc<Account>, bytes: usize) -> Result<Room, Problem> {
        let rooms = &self.shared.payload_rooms;
        rooms.take_for(bytes, account, Pool::Payloads).map_err(|no_room| {
            let full = "what waits to be written fills the room that there is for it; nothing of this request was kept";
            no_room_problem(no_room, rooms, full, "bytes than may wait to be written for one tenant")
        })
    }

    /// Hands log rows of `account` to the log writer, which answers to `back`.
    pub(super) fn post_logs(
        &self,
        account: &Arc<Account>,
        rows: Vec<LogRow>,
        reply: ReplyTo,
    ) -> Result<(), Problem> {
        if let Some(problem) = self.sheds_logs(rows.len()) {
            return Err(problem);
        }
        let room = self.log_room(account, &rows)?;
        self.shared
            .log_postings
            .try_send(LogPosting { rows, reply: Some(reply), room: Some(room) })
            .map_err(|_| Problem::new(Kind::Unavailable, LOG_QUEUE_FULL))
    }
}

/// What to say where there is no room: `full` where there is none for anybody, and more `what` where there never is.
fn no_room_problem(no_room: NoRoom, rooms: &Rooms, full: &'static str, what: &str) -> Problem {
    match no_room {
        NoRoom::Now => Problem::new(Kind::Unavailable, full),
        NoRoom::Share => Problem::new(
            Kind::Unavailable,
            "your tenant holds as much of the queue as is left to others; nothing of this request was kept",
        ),
        NoRoom::Ever => {
            let detail = format!("more {what} ({}): send less at once", rooms.share_max());
            Problem::new(Kind::TooLarge, detail)
        }
    }
}

/// Ends the span of a request that is refused before it is handed on.
fn refused(reply: &mut ReplyTo, problem: Problem) -> Problem {
    let receiving = reply.context.downcast_mut::<Waiting>().and_then(Waiting::receiving);
    if let Some(receiving) = receiving {
        receiving.answered(problem.kind.status());
    }
    problem
}
