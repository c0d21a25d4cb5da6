//! `POST /internal/*`: processes report themselves. This module turns a report into an event and answers once it is
//! durable; log rows go to the log writer and are answered once they are committed.

use bumpalo::Bump;

use super::problem::{Kind, Problem};
use super::{Desk, Exchange, Handled, JSON, Outcome, Waiting, relied_on};
use crate::domain::door;
use crate::domain::event::{Receipt, Verdict};
use crate::domain::fields::DoorError;
use crate::domain::ids::{EventId, IdempotencyKey, ProcessId};
use crate::domain::report::{self, ReportKind};
use crate::http::{Head, Reply};
use crate::mailbox::Answer;
use crate::telemetry::traces::Receiving;
use crate::view::json::Json;

/// A report that waits for its commit.
pub(super) struct WaitingReport {
    kind: ReportKind,
    /// The run that the report names itself.
    run_id: Option<EventId>,
    pub(super) trace_id: String,
    pub(super) receiving: Option<Box<Receiving>>,
}

/// Log rows that wait for their commit.
pub(super) struct WaitingLog {
    pub(super) trace_id: String,
}

impl Desk {
    pub(super) fn report<'a>(
        &mut self,
        exchange: &Exchange<'_, 'a>,
        kind: ReportKind,
    ) -> Outcome<'a> {
        let tenant = exchange.tenant()?;
        let process = process_id(exchange)?;
        let key = idempotency_key(&exchange.request.head)?;
        let envelope = report::internal(
            tenant,
            kind,
            process,
            exchange.request.body,
            key,
            exchange.trace,
            uuid::Uuid::now_v7,
        )
        .map_err(|error| door_problem(&error))?;
        let run_id = named_run(kind, &envelope.payload);
        let mut envelopes = vec![envelope];
        let (receiving, durable) = self.open(exchange, &mut envelopes);
        let waiting = WaitingReport { kind, run_id, trace_id: exchange.trace_id(), receiving };
        let reply = exchange.back.reply_to(Box::new(Waiting::Report(waiting)));
        self.post(exchange.account()?, envelopes, durable, reply)?;
        Ok(Handled::Waiting)
    }

    pub(super) fn log<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
        let tenant = exchange.tenant()?;
        let process = process_id(exchange)?;
        let rows =
            report::log_rows(tenant, process, exchange.request.body, self.shared.store.now())
                .map_err(|error| door_problem(&error))?;
        let waiting = WaitingLog { trace_id: exchange.trace_id() };
        if rows.is_empty() {
            return Ok(Handled::Reply(waiting.finish(exchange.arena, Answer::Logged(0))));
        }
        let reply = exchange.back.reply_to(Box::new(Waiting::Log(waiting)));
        self.post_logs(exchange.account()?, rows, reply)?;
        Ok(Handled::Waiting)
    }
}

/// The run that a report names. Most name none, and then nothing is parsed.
fn named_run(kind: ReportKind, payload: &str) -> Option<EventId> {
    if !payload.contains("\"run_id\"") {
        return None;
    }
    report::parse(kind, payload).ok().and_then(|report| report.run_id)
}

/// The key that makes a retry safe, where there is one.
pub(super) fn idempotency_key(head: &Head<'_>) -> Result<Option<IdempotencyKey>, Problem> {
    let key = relied_on(head, "Idempotency-Key")?.map(door::idempotency_key).transpose();
    key.map_err(|error| door_problem(&error))
}

fn process_id(exchange: &Exchange<'_, '_>) -> Result<Option<ProcessId>, Problem> {
    match relied_on(&exchange.request.head, "X-Sentinel-Process-Id")? {
        None | Some("") => Ok(None),
        Some(text) => ProcessId::parse(text).map(Some).map_err(|error| {
            Problem::new(Kind::InvalidBody, format!("X-Sentinel-Process-Id: {error}"))
                .field("process_id")
        }),
    }
}

/// What the caller of a door is told.
pub(super) fn door_problem(error: &DoorError) -> Problem {
    match error {
        DoorError::Invalid { field, .. } => {
            Problem::new(Kind::InvalidBody, error.to_string()).field(field)
        }
        DoorError::NotJson(_) => Problem::new(Kind::InvalidBody, error.to_string()),
        DoorError::TooMany { .. } => Problem::new(Kind::TooLarge, error.to_string()),
        DoorError::TenantMismatch => {
            Problem::new(Kind::TenantMismatch, Kind::TenantMismatch.help())
        }
    }
}

/// The problem of a verdict that is no acceptance.
pub(super) fn refusal(verdict: &Verdict) -> Option<Problem> {
    match verdict {
        Verdict::Accepted(_) | Verdict::Replayed(_) => None,
        Verdict::KeyReused => Some(Problem::new(Kind::KeyReused, Kind::KeyReused.help())),
        Verdict::EventIdReused => {
            Some(Problem::new(Kind::EventIdReused, Kind::EventIdReused.help()))
        }
        Verdict::Unavailable(why) | Verdict::HeldBack(why) => {
            Some(Problem::new(Kind::Unavailable, *why))
        }
    }
}

impl WaitingReport {
    pub(super) fn finish<'a>(self, arena: &'a Bump, answer: Answer) -> Reply<'a> {
        match single(answer) {
            Ok((receipt, replayed)) => accepted(arena, replayed, |json| {
                json.member("process_id").text(receipt.stream.as_str());
                let run_id = match self.kind {
                    // A start opens the run that is named after it.
                    ReportKind::Start => Some(receipt.event_id.as_str()),
                    _ => self.run_id.as_ref().map(|id| id.as_str()),
                };
                json.text_or_null("run_id", run_id);
                write_receipt(json, &receipt, &self.trace_id);
            }),
            Err(problem) => problem.reply(arena, None, Some(&self.trace_id)),
        }
    }
}

impl WaitingLog {
    pub(super) fn finish<'a>(self, arena: &'a Bump, answer: Answer) -> Reply<'a> {
        match answer {
            Answer::Logged(rows) => {
                let mut json = Json::new(arena);
                json.object(|json| {
                    json.member("accepted").number(rows as u64);
                    json.member("traceId").text(&self.trace_id);
                });
                Reply {
                    status: 202,
                    content_type: JSON,
                    headers: Vec::new(),
                    body: json.finish().into(),
                    close: false,
                }
            }
            Answer::Unavailable(why) | Answer::HeldBack(why) => {
                Problem::new(Kind::Unavailable, why).reply(arena, None, Some(&self.trace_id))
            }
            Answer::Verdicts(_) => Problem::new(Kind::Internal, Kind::Internal.help()).reply(
                arena,
                None,
                Some(&self.trace_id),
            ),
        }
    }
}

/// The answer about a single event: its receipt and whether it is a replay, or the problem.
pub(super) fn single(answer: Answer) -> Result<(Receipt, bool), Problem> {
    let internal = || Problem::new(Kind::Internal, Kind::Internal.help());
    match answer {
        Answer::Verdicts(mut verdicts) => match verdicts.pop() {
            Some(Verdict::Accepted(receipt)) => Ok((receipt, false)),
            Some(Verdict::Replayed(receipt)) => Ok((receipt, true)),
            Some(refused) => Err(refusal(&refused).unwrap_or_else(internal)),
            None => Err(internal()),
        },
        Answer::Unavailable(why) | Answer::HeldBack(why) => {
            Err(Problem::new(Kind::Unavailable, why))
        }
        Answer::Logged(_) => Err(internal()),
    }
}

/// A 202 with the members that `write` writes.
pub(super) fn accepted<'a>(
    arena: &'a Bump,
    replayed: bool,
    write: impl FnOnce(&mut Json<'a>),
) -> Reply<'a> {
    let mut json = Json::new(arena);
    json.object(write);
    let headers = if replayed { vec![("Idempotency-Replayed", "true".into())] } else { Vec::new() };
    Reply { status: 202, content_type: JSON, headers, body: json.finish().into(), close: false }
}

/// The members that every receipt shows.
pub(super) fn write_receipt(json: &mut Json<'_>, receipt: &Receipt, trace_id: &str) {
    json.member("eventId").text(receipt.event_id.as_str());
    json.member("streamSeq").number(receipt.stream_seq);
    json.member("receivedAtUtc").time(receipt.received_at);
    json.member("traceId").text(trace_id);
}
