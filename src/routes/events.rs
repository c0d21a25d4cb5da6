//! `POST /v1/events`: the gateway. This module takes one event or a batch, in every form that the contract knows.
//!
//! Lines of a batch never roll each other back: each has its own result, in the order and the media family of the
//! request. What does not fit now is refused whole.

use bumpalo::Bump;

use super::internal::{accepted, door_problem, refusal, single, write_receipt};
use super::problem::{Kind, Problem};
use super::{Desk, Exchange, Outcome, Waiting};
use crate::domain::cloudevents;
use crate::domain::door::{self, BATCH_EVENTS_MAX};
use crate::domain::event::{Envelope, Verdict};
use crate::http::{Handled, Head, Reply};
use crate::mailbox::Answer;
use crate::view::json::Json;

const NDJSON: &str = "application/x-ndjson";
const CLOUDEVENT: &str = "application/cloudevents+json";
const CLOUDEVENTS_BATCH: &str = "application/cloudevents-batch+json";

/// The form of a request, by its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Native,
    Ndjson,
    CloudEvent,
    CloudEventBinary,
    CloudEventsBatch,
}

/// A single event that waits for its commit.
pub(super) struct WaitingEvent {
    trace_id: String,
}

/// A batch that waits for its commit.
pub(super) struct WaitingBatch {
    form: Form,
    lines: Vec<Line>,
    trace_id: String,
}

/// One input of a batch: its number as the user counts, and what is known of it so far.
struct Line {
    number: usize,
    refused: Option<Problem>,
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
        let key = head.headers.get("idempotency-key").map(door::idempotency_key).transpose();
        let key = key.map_err(|error| door_problem(&error))?;
        let (body, trace) = (exchange.request.body, exchange.trace);
        let header = head.headers.get("traceparent");
        let fresh = || trace.trace_id;
        let envelope = match form {
            Form::CloudEvent => cloudevents::structured(tenant, body, key, header, fresh),
            Form::CloudEventBinary => {
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
        let waiting = WaitingEvent { trace_id: door::trace_id_hex(&envelope.trace) };
        let reply = exchange.back.reply_to(Box::new(Waiting::Event(waiting)));
        self.post(vec![envelope], reply)?;
        Ok(Handled::Waiting)
    }

    fn post_batch<'a>(&mut self, exchange: &Exchange<'_, 'a>, form: Form) -> Outcome<'a> {
        let tenant = exchange.tenant()?;
        if exchange.request.head.headers.get("idempotency-key").is_some() {
            return Err(Problem::new(Kind::KeyOnBatch, Kind::KeyOnBatch.help()));
        }
        let (body, trace) = (exchange.request.body, exchange.trace);
        let inputs: Vec<(usize, Result<Envelope, door::DoorError>)> = if form == Form::Ndjson {
            door::ndjson_lines(body)
                .take(BATCH_EVENTS_MAX + 1)
                .map(|(number, line)| (number, door::native(tenant, line, None, trace)))
                .collect()
        } else {
            let header = exchange.request.head.headers.get("traceparent");
            cloudevents::batch(tenant, body, header, || trace.trace_id)
                .map_err(|error| door_problem(&error))?
                .into_iter()
                .enumerate()
                .map(|(index, item)| (index + 1, item))
                .collect()
        };
        if inputs.len() > BATCH_EVENTS_MAX {
            let detail = format!("a batch holds {BATCH_EVENTS_MAX} events at most: split it");
            return Err(Problem::new(Kind::TooLarge, detail));
        }
        if inputs.is_empty() {
            return Err(Problem::new(Kind::InvalidBody, "the batch holds no event"));
        }
        let mut envelopes = Vec::with_capacity(inputs.len());
        let mut lines = Vec::with_capacity(inputs.len());
        for (number, input) in inputs {
            match input {
                Ok(envelope) => {
                    envelopes.push(envelope);
                    lines.push(Line { number, refused: None });
                }
                Err(error) => lines.push(Line { number, refused: Some(door_problem(&error)) }),
            }
        }
        let waiting = WaitingBatch { form, lines, trace_id: exchange.trace_id() };
        if envelopes.is_empty() {
            return Ok(Handled::Reply(
                waiting.finish(exchange.arena, Answer::Verdicts(Vec::new())),
            ));
        }
        let reply = exchange.back.reply_to(Box::new(Waiting::Batch(waiting)));
        self.post(envelopes, reply)?;
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

impl WaitingBatch {
    pub(super) fn finish<'a>(self, arena: &'a Bump, answer: Answer) -> Reply<'a> {
        let verdicts = match answer {
            Answer::Verdicts(verdicts) => verdicts,
            Answer::Unavailable(why) => {
                return Problem::new(Kind::Unavailable, why).reply(
                    arena,
                    None,
                    Some(&self.trace_id),
                );
            }
            Answer::Logged(_) => {
                return Problem::new(Kind::Internal, Kind::Internal.help()).reply(
                    arena,
                    None,
                    Some(&self.trace_id),
                );
            }
        };
        let all_accepted = self.lines.iter().all(|line| line.refused.is_none())
            && verdicts
                .iter()
                .all(|verdict| matches!(verdict, Verdict::Accepted(_) | Verdict::Replayed(_)));
        let mut json = Json::new(arena);
        if self.form == Form::Ndjson {
            self.write_lines(&mut json, verdicts, true);
        } else {
            json.array(|json| self.write_lines(json, verdicts, false));
        }
        Reply {
            status: if all_accepted { 202 } else { 207 },
            content_type: if self.form == Form::Ndjson { NDJSON } else { super::JSON },
            headers: Vec::new(),
            body: json.finish().into(),
            close: false,
        }
    }

    fn write_lines(&self, json: &mut Json<'_>, verdicts: Vec<Verdict>, as_lines: bool) {
        let mut verdicts = verdicts.into_iter();
        for line in &self.lines {
            let verdict = if line.refused.is_none() { verdicts.next() } else { None };
            json.object(|json| {
                json.member("line").number(line.number as u64);
                let problem = match (&line.refused, &verdict) {
                    (Some(problem), _) => problem.clone(),
                    (None, Some(Verdict::Accepted(receipt) | Verdict::Replayed(receipt))) => {
                        json.member("status").number(202);
                        json.member("eventId").text(receipt.event_id.as_str());
                        json.member("streamSeq").number(receipt.stream_seq);
                        json.member("receivedAtUtc").time(receipt.received_at);
                        json.member("replayed")
                            .boolean(matches!(verdict, Some(Verdict::Replayed(_))));
                        return;
                    }
                    (None, verdict) => verdict
                        .as_ref()
                        .and_then(refusal)
                        .unwrap_or_else(|| Problem::new(Kind::Internal, Kind::Internal.help())),
                };
                json.member("status").number(u64::from(problem.kind.status()));
                json.member("problem").with(|json| problem.write(json, None, Some(&self.trace_id)));
            });
            if as_lines {
                json.line();
            }
        }
    }
}
