//! `POST /v1/events`: the gateway. This module tells the forms that the contract knows apart, and takes a single event;
//! [`super::batch`] takes many.
//!
//! An envelope of the type `process.log` is no event but a log row: it goes to the log writer, gets no number, and is
//! answered once it is committed. A row has no identity either, so a repeat is a second row.

use bumpalo::Bump;

use super::internal::{accepted, door_problem, idempotency_key, single, write_receipt};
use super::problem::{Kind, Problem};
use super::{Desk, Exchange, Handled, Outcome, Waiting};
use crate::domain::fields::DoorError;
use crate::domain::ids::EventId;
use crate::domain::time::Timestamp;
use crate::domain::{cloudevents, door, report};
use crate::http::{Head, Reply};
use crate::mailbox::Answer;
use crate::telemetry::traces::Receiving;

pub(super) const NDJSON: &str = "application/x-ndjson";
const CLOUDEVENT: &str = "application/cloudevents+json";
const CLOUDEVENTS_BATCH: &str = "application/cloudevents-batch+json";

/// The form of a request, by its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Native,
    Ndjson,
    CloudEvent,
    CloudEventBinary,
    CloudEventsBatch,
}

/// A single event that waits for its commit.
pub(super) struct WaitingEvent {
    pub(super) trace_id: String,
    pub(super) receiving: Option<Box<Receiving>>,
}

/// A single log row that waits for its commit.
pub(super) struct WaitingRow {
    event_id: EventId,
    received_at: Timestamp,
    pub(super) trace_id: String,
}

/// The content type without its parameters.
fn media_type<'r>(head: &Head<'r>) -> &'r str {
    let text = head.headers.get("content-type").unwrap_or_default();
    text.split_once(';').map_or(text, |(kind, _)| kind).trim()
}

/// The form of a POST to `/v1/events`. None: a type that is not supported.
fn form(head: &Head<'_>) -> Option<Form> {
    let media = media_type(head);
    let is = |kind: &str| media.eq_ignore_ascii_case(kind);
    if is(NDJSON) || is("application/ndjson") || is("application/jsonl") {
        Some(Form::Ndjson)
    } else if is(CLOUDEVENTS_BATCH) {
        Some(Form::CloudEventsBatch)
    } else if is(CLOUDEVENT) {
        Some(Form::CloudEvent)
    } else if head.headers.get("ce-specversion").is_some() {
        Some(Form::CloudEventBinary)
    } else if is("application/json") || media.is_empty() {
        Some(Form::Native)
    } else {
        None
    }
}

/// Whether a request carries more than one event.
pub(super) fn is_batch(head: &Head<'_>) -> bool {
    matches!(form(head), Some(Form::Ndjson | Form::CloudEventsBatch))
}

impl Desk {
    pub(super) fn post_events<'a>(&mut self, exchange: &Exchange<'_, 'a>) -> Outcome<'a> {
        let Some(form) = form(&exchange.request.head) else {
            return Err(Problem::new(
                Kind::UnsupportedMediaType,
                Kind::UnsupportedMediaType.help(),
            ));
        };
        match form {
            Form::Native | Form::CloudEvent | Form::CloudEventBinary => {
                self.post_one(exchange, form)
            }
            Form::Ndjson | Form::CloudEventsBatch => self.post_batch(exchange, form),
        }
    }

    fn post_one<'a>(&mut self, exchange: &Exchange<'_, 'a>, form: Form) -> Outcome<'a> {
        let tenant = exchange.tenant()?;
        let head = &exchange.request.head;
        let key = idempotency_key(head)?;
        let (body, trace) = (exchange.request.body, exchange.trace);
        if form == Form::Native && body.trim_ascii_start().starts_with(b"[") {
            let words = "is an array: send one event, or a batch as application/x-ndjson (one event a line) or \
                         application/cloudevents-batch+json";
            return Err(door_problem(&DoorError::Invalid { field: "body", problem: words.into() }));
        }
        let header = head.headers.get("traceparent");
        let fresh = || trace.trace_id;
        let envelope = match form {
            Form::CloudEvent => cloudevents::structured(tenant, body, key, header, fresh),
            Form::CloudEventBinary => {
                for (name, value) in head.headers.0 {
                    // An attribute that cannot be read must not pass for one that is not there.
                    let is_attribute =
                        name.get(..3).is_some_and(|ce| ce.eq_ignore_ascii_case("ce-"));
                    if is_attribute && std::str::from_utf8(value).is_err() {
                        let words = format!("{name} is not UTF-8: percent-encode its value");
                        return Err(Problem::new(Kind::InvalidBody, words));
                    }
                }
                let fields =
                    head.headers.0.iter().filter_map(|(name, value)| {
                        Some((*name, std::str::from_utf8(value).ok()?))
                    });
                cloudevents::binary(tenant, fields, body, key, header, fresh)
            }
            Form::Native | Form::Ndjson | Form::CloudEventsBatch => {
                door::native(tenant, body, key, trace)
            }
        }
        .map_err(|error| door_problem(&error))?;
        if envelope.key.is_none() {
            return Err(Problem::new(Kind::KeyMissing, Kind::KeyMissing.help()));
        }
        let trace_id = door::trace_id_hex(&envelope.trace);
        if report::is_log(&envelope) {
            let received_at = self.shared.store.now();
            let row = report::posted_log_row(&envelope, received_at)
                .map_err(|error| door_problem(&error))?;
            let waiting = WaitingRow { event_id: envelope.event_id, received_at, trace_id };
            let reply = exchange.back.reply_to(Box::new(Waiting::Row(waiting)));
            self.post_logs(exchange.account()?, vec![row], reply)?;
            return Ok(Handled::Waiting);
        }
        let mut envelopes = vec![envelope];
        let (receiving, durable) = self.open(exchange, &mut envelopes);
        let waiting = WaitingEvent { trace_id, receiving };
        let reply = exchange.back.reply_to(Box::new(Waiting::Event(waiting)));
        self.post(exchange.account()?, envelopes, durable, reply)?;
        Ok(Handled::Waiting)
    }
}

impl WaitingEvent {
    pub(super) fn finish<'a>(self, arena: &'a Bump, answer: Answer) -> Reply<'a> {
        match single(answer) {
            Ok((receipt, replayed)) => {
                accepted(arena, replayed, |json| write_receipt(json, &receipt, &self.trace_id))
            }
            Err(problem) => problem.reply(arena, None, Some(&self.trace_id)),
        }
    }
}

impl WaitingRow {
    pub(super) fn finish<'a>(self, arena: &'a Bump, answer: Answer) -> Reply<'a> {
        let problem = match answer {
            Answer::Logged(_) => {
                return accepted(arena, false, |json| {
                    json.member("eventId").text(self.event_id.as_str());
                    // A row has no number: it is in no stream.
                    json.text_or_null("streamSeq", None);
                    json.member("receivedAtUtc").time(self.received_at);
                    json.member("traceId").text(&self.trace_id);
                });
            }
            Answer::Unavailable(why) | Answer::HeldBack(why) => {
                Problem::new(Kind::Unavailable, why)
            }
            Answer::Verdicts(_) => Problem::new(Kind::Internal, Kind::Internal.help()),
        };
        problem.reply(arena, None, Some(&self.trace_id))
    }
}
