//! A batch of `POST /v1/events`: many events and log rows in one request. This module sends each line on its way and
//! writes one result for each, in the order and the media family of the request.
//!
//! Lines never roll each other back. What does not fit now is refused whole: room for everything is taken before
//! anything is handed on. Events go first; the log rows follow when the events are durable ([`RowsNext`]), so that a
//! batch whose events are refused leaves no rows behind. Rows that cannot be written then say so in their lines.

use std::sync::Arc;

use bumpalo::Bump;
use crossbeam::channel::Sender;
use parking_lot::Mutex;

use super::events::{Form, NDJSON};
use super::internal::{door_problem, refusal};
use super::problem::{Kind, Problem};
use super::{Desk, Exchange, Handled, JSON, Outcome, Waiting};
use crate::domain::door::{self, BATCH_EVENTS_MAX};
use crate::domain::event::{Envelope, Verdict};
use crate::domain::fields::DoorError;
use crate::domain::ids::EventId;
use crate::domain::log_row::LogRow;
use crate::domain::time::Timestamp;
use crate::domain::{cloudevents, report};
use crate::http::Reply;
use crate::log_writer::LogPosting;
use crate::mailbox::{Answer, Letter, Mailbox, ReplyTo};
use crate::room::Load;
use crate::telemetry::traces::Receiving;
use crate::view::json::Json;

const ROWS_WAIT: &str =
    "the log queue is full; the events of this batch are kept, its log rows are not";

/// A batch that waits for its commits.
pub(super) struct WaitingBatch {
    form: Form,
    lines: Vec<Line>,
    pub(super) trace_id: String,
    /// When its log rows came in.
    received_at: Timestamp,
    /// What became of its events, while its log rows are still on their way.
    verdicts: Option<Vec<Verdict>>,
    pub(super) receiving: Option<Box<Receiving>>,
}

/// One input of a batch: its number as the user counts, and what is known of it so far.
struct Line {
    number: usize,
    input: Input,
}

/// What a line is.
enum Input {
    Event,
    Row(EventId),
    Refused(Problem),
}

/// One input with its number, as the door took it.
type Read = (usize, Result<Envelope, DoorError>);

/// The lines of a batch, each on its way.
struct Sorted {
    lines: Vec<Line>,
    envelopes: Vec<Envelope>,
    rows: Vec<LogRow>,
}

impl Desk {
    pub(super) fn post_batch<'a>(
        &mut self,
        exchange: &Exchange<'_, 'a>,
        form: Form,
    ) -> Outcome<'a> {
        let inputs = read(exchange, form)?;
        let received_at = self.shared.store.now();
        let Sorted { mut lines, mut envelopes, mut rows } = sort(inputs, received_at);
        // Where space runs low log rows go first, and the events beside them are taken all the same.
        if !rows.is_empty()
            && !envelopes.is_empty()
            && let Some(problem) = self.sheds_logs(rows.len())
        {
            rows.clear();
            for line in &mut lines {
                if matches!(line.input, Input::Row(_)) {
                    line.input = Input::Refused(problem.clone());
                }
            }
        }
        let trace_id = exchange.trace_id();
        let (verdicts, receiving) = (None, None);
        let mut waiting = WaitingBatch { form, lines, trace_id, received_at, verdicts, receiving };
        if envelopes.is_empty() && rows.is_empty() {
            let answer = Answer::Verdicts(Vec::new());
            return Ok(Handled::Reply(waiting.finish(exchange.arena, answer)));
        }
        if envelopes.is_empty() {
            let reply = exchange.back.reply_to(Box::new(Waiting::Batch(waiting)));
            self.post_logs(exchange.account()?, rows, reply)?;
            return Ok(Handled::Waiting);
        }
        let account = exchange.account()?;
        let room = if rows.is_empty() { None } else { Some(self.log_room(account, &rows)?) };
        let durable;
        (waiting.receiving, durable) = self.open(exchange, &mut envelopes);
        let mut reply = exchange.back.reply_to(Box::new(Waiting::Batch(waiting)));
        if let Some(room) = room {
            let (asker, log_postings) = (reply.mailbox, self.shared.log_postings.clone());
            let rest = Mutex::new(Some((rows, room)));
            reply.mailbox = Arc::new(RowsNext { asker, log_postings, rest });
        }
        self.post(account, envelopes, durable, reply)?;
        Ok(Handled::Waiting)
    }
}

/// Reads the inputs of a batch, each with its number.
fn read(exchange: &Exchange<'_, '_>, form: Form) -> Result<Vec<Read>, Problem> {
    let tenant = exchange.tenant()?;
    if exchange.request.head.headers.count("idempotency-key") > 0 {
        return Err(Problem::new(Kind::KeyOnBatch, Kind::KeyOnBatch.help()));
    }
    let (body, trace) = (exchange.request.body, exchange.trace);
    let inputs: Vec<_> = if form == Form::Ndjson {
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
    Ok(inputs)
}

/// Tells events, log rows and what is neither apart.
fn sort(inputs: Vec<Read>, received_at: Timestamp) -> Sorted {
    let mut sorted = Sorted {
        lines: Vec::with_capacity(inputs.len()),
        envelopes: Vec::with_capacity(inputs.len()),
        rows: Vec::new(),
    };
    for (number, input) in inputs {
        let input = match input {
            Ok(envelope) if report::is_log(&envelope) => {
                match report::posted_log_row(&envelope, received_at) {
                    Ok(row) => {
                        sorted.rows.push(row);
                        Input::Row(envelope.event_id)
                    }
                    Err(error) => Input::Refused(door_problem(&error)),
                }
            }
            Ok(envelope) => {
                sorted.envelopes.push(envelope);
                Input::Event
            }
            Err(error) => Input::Refused(door_problem(&error)),
        };
        sorted.lines.push(Line { number, input });
    }
    sorted
}

/// Stands between intake and the asker of a batch that holds log rows, too: when the events are durable it hands the
/// rows to the log writer, which answers the asker. When they are refused, so is the whole batch.
struct RowsNext {
    asker: Arc<dyn Mailbox>,
    log_postings: Sender<LogPosting>,
    /// Taken when the events are answered.
    rest: Mutex<Option<(Vec<LogRow>, Load)>>,
}

impl Mailbox for RowsNext {
    fn put(&self, letter: Letter) {
        let Letter { address, mut context, answer } = letter;
        let rest = self.rest.lock().take();
        let waiting = match context.downcast_mut::<Waiting>() {
            Some(Waiting::Batch(waiting)) => Some(waiting),
            _ => None,
        };
        match (rest, waiting, answer) {
            (Some((rows, room)), Some(waiting), Answer::Verdicts(verdicts)) => {
                waiting.verdicts = Some(verdicts);
                let asker = Arc::clone(&self.asker);
                let reply = Some(ReplyTo { mailbox: asker, address, context });
                let posting = LogPosting { rows, reply, room: Some(room) };
                if let Err(refused) = self.log_postings.try_send(posting)
                    && let Some(reply) = refused.into_inner().reply
                {
                    // Whoever put this letter wakes the asker through us.
                    let _ = reply.put(Answer::Unavailable(ROWS_WAIT));
                }
            }
            (_, _, answer) => self.asker.put(Letter { address, context, answer }),
        }
    }

    fn wake(&self) {
        self.asker.wake();
    }
}

impl WaitingBatch {
    pub(super) fn finish<'a>(mut self, arena: &'a Bump, answer: Answer) -> Reply<'a> {
        let (verdicts, rows_refused) = match (self.verdicts.take(), answer) {
            (None, Answer::Verdicts(verdicts)) => (verdicts, None),
            (verdicts, Answer::Logged(_)) => (verdicts.unwrap_or_default(), None),
            (Some(verdicts), Answer::Unavailable(why) | Answer::HeldBack(why)) => {
                (verdicts, Some(Problem::new(Kind::Unavailable, why)))
            }
            (None, Answer::Unavailable(why) | Answer::HeldBack(why)) => {
                let problem = Problem::new(Kind::Unavailable, why);
                return problem.reply(arena, None, Some(&self.trace_id));
            }
            (Some(_), Answer::Verdicts(_)) => {
                let problem = Problem::new(Kind::Internal, Kind::Internal.help());
                return problem.reply(arena, None, Some(&self.trace_id));
            }
        };
        let all_accepted = self.lines.iter().all(|line| match line.input {
            Input::Event => true,
            Input::Row(_) => rows_refused.is_none(),
            Input::Refused(_) => false,
        }) && verdicts
            .iter()
            .all(|verdict| matches!(verdict, Verdict::Accepted(_) | Verdict::Replayed(_)));
        let mut json = Json::new(arena);
        if self.form == Form::Ndjson {
            self.write_lines(&mut json, verdicts, rows_refused.as_ref(), true);
        } else {
            json.array(|json| self.write_lines(json, verdicts, rows_refused.as_ref(), false));
        }
        Reply {
            status: if all_accepted { 202 } else { 207 },
            content_type: if self.form == Form::Ndjson { NDJSON } else { JSON },
            headers: Vec::new(),
            body: json.finish().into(),
            close: false,
        }
    }

    fn write_lines(
        &self,
        json: &mut Json<'_>,
        verdicts: Vec<Verdict>,
        rows_refused: Option<&Problem>,
        as_lines: bool,
    ) {
        let mut verdicts = verdicts.into_iter();
        for line in &self.lines {
            json.object(|json| {
                json.member("line").number(line.number as u64);
                let problem = match &line.input {
                    Input::Refused(problem) => Some(problem.clone()),
                    Input::Row(event_id) => match rows_refused {
                        Some(problem) => Some(problem.clone()),
                        None => {
                            self.write_row(json, event_id);
                            None
                        }
                    },
                    Input::Event => match verdicts.next() {
                        Some(verdict) => write_event(json, &verdict),
                        None => Some(Problem::new(Kind::Internal, Kind::Internal.help())),
                    },
                };
                if let Some(problem) = problem {
                    json.member("status").number(u64::from(problem.kind.status()));
                    json.member("problem")
                        .with(|json| problem.write(json, None, Some(&self.trace_id)));
                }
            });
            if as_lines {
                json.line();
            }
        }
    }

    /// The result of a log row: it has no number, and is never a replay.
    fn write_row(&self, json: &mut Json<'_>, event_id: &EventId) {
        json.member("status").number(202);
        json.member("eventId").text(event_id.as_str());
        json.text_or_null("streamSeq", None);
        json.member("receivedAtUtc").time(self.received_at);
        json.member("replayed").boolean(false);
    }
}

/// The result of an event, or the problem that it met.
fn write_event(json: &mut Json<'_>, verdict: &Verdict) -> Option<Problem> {
    let (Verdict::Accepted(receipt) | Verdict::Replayed(receipt)) = verdict else {
        let internal = || Problem::new(Kind::Internal, Kind::Internal.help());
        return Some(refusal(verdict).unwrap_or_else(internal));
    };
    json.member("status").number(202);
    json.member("eventId").text(receipt.event_id.as_str());
    json.member("streamSeq").number(receipt.stream_seq);
    json.member("receivedAtUtc").time(receipt.received_at);
    json.member("replayed").boolean(matches!(verdict, Verdict::Replayed(_)));
    None
}

#[cfg(test)]
mod tests {
    use crossbeam::channel;

    use super::*;
    use crate::domain::event::Receipt;
    use crate::domain::ids::{ProcessId, StreamKey, TenantId};
    use crate::domain::log_row::Level;
    use crate::mailbox::{Address, ChannelMailbox};
    use crate::room::Rooms;

    const ADDRESS: Address = Address { slot: 3, generation: 9 };

    fn row() -> LogRow {
        LogRow {
            tenant: TenantId::parse("t").unwrap(),
            process: ProcessId::parse("p").unwrap(),
            level: Level::Info,
            message: "m".into(),
            event_type: None,
            component: None,
            details: None,
            stack_trace: None,
            logged_at: Timestamp::default(),
            duration_us: None,
            correlation_id: None,
            trace_id: None,
            span_id: None,
        }
    }

    /// A batch of one event and one row, whose events are answered with `answer`. Returns what its asker gets, as
    /// status and body, when the log queue has room or not.
    fn answered(answer: Answer, has_room: bool) -> (u16, String) {
        let event_id = EventId::parse("row").unwrap();
        let lines = vec![
            Line { number: 1, input: Input::Event },
            Line { number: 2, input: Input::Row(event_id) },
        ];
        let received_at = Timestamp::default();
        let (form, trace_id) = (Form::Ndjson, String::from("trace"));
        let (verdicts, receiving) = (None, None);
        let waiting = WaitingBatch { form, lines, trace_id, received_at, verdicts, receiving };
        let (log_postings, posted) = channel::bounded(1);
        if !has_room {
            log_postings.send(LogPosting { rows: Vec::new(), reply: None, room: None }).unwrap();
        }
        let rooms = Rooms::new(2);
        let (asker, letters) = ChannelMailbox::new();
        let room = || rooms.take(1).unwrap();
        let load = Load { entries: room(), bytes: room() };
        let rest = Mutex::new(Some((vec![row()], load)));
        let between = RowsNext { asker, log_postings, rest };
        let context = Box::new(Waiting::Batch(waiting));
        between.put(Letter { address: ADDRESS, context, answer });
        let letter = match letters.try_recv() {
            Ok(letter) => {
                assert_eq!(rooms.taken(), 0, "the room is given back");
                letter
            }
            Err(_nothing_yet) => {
                let posting = posted.try_recv().unwrap();
                assert_eq!((posting.rows.len(), rooms.taken()), (1, 2));
                let _mailbox = posting.reply.unwrap().put(Answer::Logged(1));
                letters.try_recv().unwrap()
            }
        };
        assert_eq!(letter.address, ADDRESS);
        let Ok(waiting) = letter.context.downcast::<Waiting>() else { panic!("its own context") };
        let arena = Bump::new();
        let reply = waiting.finish(&arena, letter.answer);
        (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
    }

    fn accepted() -> Answer {
        Answer::Verdicts(vec![Verdict::Accepted(Receipt {
            event_id: EventId::parse("event").unwrap(),
            stream: StreamKey::parse("p").unwrap(),
            stream_seq: 7,
            received_at: Timestamp::default(),
        })])
    }

    #[test]
    fn rows_follow_the_events_and_say_in_their_lines_where_they_cannot() {
        let (status, body) = answered(accepted(), true);
        assert_eq!(status, 202, "{body}");
        let (status, body) = answered(accepted(), false);
        assert_eq!(status, 207, "{body}");
        let lines: Vec<serde_json::Value> =
            body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["status"], &lines[0]["streamSeq"]), (&202.into(), &7.into()));
        assert_eq!(lines[1]["status"], 503);
        assert_eq!(lines[1]["problem"]["detail"], ROWS_WAIT);
    }

    #[test]
    fn where_the_events_are_refused_no_row_is_written() {
        for has_room in [true, false] {
            let (status, body) = answered(Answer::Unavailable("full"), has_room);
            assert_eq!(status, 503, "{body}");
        }
    }
}
