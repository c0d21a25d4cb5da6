//! Who records which span. This module follows an event: the request that brings it, the commit that makes it
//! durable, the listener that applies it.
//!
//! Each span is the child of the one before it, so a trace reads from top to bottom. The link from intake to listener
//! is the trace context that is stored with the event: its parent is the `durable` span, whichever process reads it,
//! and `sampled` says that it is recorded. An event whose trace context was stored while nothing was traced has its
//! caller's span as the parent, and its claim goes under that one.

use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::KeyValue;

use super::{EVENTS_PER_REQUEST_MAX, Span, Step, Subject, Tracer};
use crate::domain::dead_letter::Reason;
use crate::domain::event::{Accepted, Envelope, TraceContext, Verdict};
use crate::domain::time::Timestamp;
use crate::mailbox::Answer;

/// The request that events come with.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub method: &'static str,
    /// The path with its arguments in braces.
    pub route: &'static str,
    /// When its head was read.
    pub begun: Timestamp,
    /// The trace of a request that brings many events. Of a single event it is the event's.
    pub trace: TraceContext,
}

/// The two spans that are open while a posted event becomes durable.
pub struct Opened {
    pub receiving: Box<Receiving>,
    pub durable: Box<Durable>,
}

/// The `receive` span of a request whose answer comes from another thread. It is recorded when it is dropped.
pub struct Receiving {
    tracer: Tracer,
    request: Request,
    span_id: [u8; 8],
    subject: Option<Arc<Subject>>,
    facts: Vec<KeyValue>,
    status: Option<u16>,
}

/// The `durable` span of one posting.
pub struct Durable {
    tracer: Tracer,
    trace_id: [u8; 16],
    receiving_id: [u8; 8],
    span_id: [u8; 8],
    begun: Timestamp,
    subject: Option<Arc<Subject>>,
    facts: Vec<KeyValue>,
}

impl Tracer {
    /// Opens the spans of `request`, which brings `envelopes`, and writes into the trace context of each whether and
    /// under which span it is traced from here on. None: the request is not recorded.
    pub fn open(&self, request: Request, envelopes: &mut [Envelope]) -> Option<Opened> {
        let mut request = request;
        if let [only] = &*envelopes {
            request.trace = only.trace;
        }
        let is_traced = self.samples(&request.trace);
        let (receiving_id, durable_id) =
            if is_traced { (self.span_id(), self.span_id()) } else { Default::default() };
        let mut traced = 0;
        for envelope in envelopes.iter_mut() {
            let of_request = envelope.trace.trace_id == request.trace.trace_id;
            let wanted = if of_request { is_traced } else { self.samples(&envelope.trace) };
            envelope.trace.sampled = wanted && traced < EVENTS_PER_REQUEST_MAX;
            traced += usize::from(envelope.trace.sampled);
            if envelope.trace.sampled && of_request {
                envelope.trace.parent_id = durable_id;
            }
        }
        if !is_traced {
            return None;
        }
        let (subject, facts) = match &*envelopes {
            [only] => (Some(Arc::new(Subject::of(only))), Vec::new()),
            many => (None, of_many(many)),
        };
        let receiving = Box::new(Receiving {
            tracer: self.clone(),
            request,
            span_id: receiving_id,
            subject: subject.clone(),
            facts: facts.clone(),
            status: None,
        });
        let durable = Box::new(Durable {
            tracer: self.clone(),
            trace_id: request.trace.trace_id,
            receiving_id,
            span_id: durable_id,
            begun: self.now(),
            subject,
            facts,
        });
        Some(Opened { receiving, durable })
    }
}

/// What there is to say of many events at once.
fn of_many(envelopes: &[Envelope]) -> Vec<KeyValue> {
    let tenant = envelopes.first().map(|envelope| envelope.tenant.as_str().to_owned());
    let count = i64::try_from(envelopes.len()).unwrap_or(i64::MAX);
    let count = KeyValue::new("messaging.batch.message_count", count);
    tenant.map(|tenant| KeyValue::new("tenant.id", tenant)).into_iter().chain([count]).collect()
}

impl Receiving {
    /// The request is answered with `status`. Returns the id of its trace.
    pub fn answered(mut self, status: u16) -> [u8; 16] {
        self.status = Some(status);
        self.request.trace.trace_id
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let Self { tracer, request, status, .. } = self;
        let mut facts = std::mem::take(&mut self.facts);
        let (request, span_id, subject) = (*request, self.span_id, self.subject.take());
        let failure = match status {
            Some(status) if *status >= 500 => Some(Cow::Borrowed("the service could not take it")),
            Some(_) => None,
            None => Some(Cow::Borrowed("the request was never answered")),
        };
        tracer.record(1, || {
            facts.push(KeyValue::new("http.request.method", request.method));
            facts.push(KeyValue::new("http.route", request.route));
            if let Some(status) = *status {
                facts.push(KeyValue::new("http.response.status_code", i64::from(status)));
            }
            vec![Span {
                step: Step::Receive,
                trace_id: request.trace.trace_id,
                span_id,
                parent_id: request.trace.parent_id,
                parent_is_remote: request.trace.parent_id != [0; 8],
                begun: request.begun,
                ended: tracer.now(),
                subject,
                facts,
                failure,
            }]
        });
    }
}

impl Durable {
    /// The commit is over, and this is the answer.
    pub fn answered(self, answer: &Answer) {
        let Self { tracer, trace_id, receiving_id, span_id, begun, subject, mut facts } = self;
        let ended = tracer.now();
        let (outcome, failure) = outcome(answer);
        tracer.record(1, || {
            facts.push(KeyValue::new("sentinel.outcome", outcome));
            vec![Span {
                step: Step::Durable,
                trace_id,
                span_id,
                parent_id: receiving_id,
                parent_is_remote: false,
                begun,
                ended,
                subject,
                facts,
                failure: failure.map(Cow::Borrowed),
            }]
        });
    }
}

/// What became of a posting, in one word, and why it failed.
fn outcome(answer: &Answer) -> (&'static str, Option<&'static str>) {
    let word = |verdict: &Verdict| match verdict {
        Verdict::Accepted(_) => "accepted",
        Verdict::Replayed(_) => "replayed",
        Verdict::KeyReused => "key-reused",
        Verdict::EventIdReused => "event-id-reused",
        Verdict::Unavailable(_) | Verdict::HeldBack(_) => "unavailable",
    };
    match answer {
        Answer::Verdicts(verdicts) => {
            let first = verdicts.first().map_or("accepted", word);
            let same = verdicts.iter().all(|verdict| word(verdict) == first);
            (if same { first } else { "mixed" }, None)
        }
        Answer::Logged(_) => ("accepted", None),
        Answer::Unavailable(why) | Answer::HeldBack(why) => ("unavailable", Some(why)),
    }
}

/// When the listener did what with the events of one commit.
#[derive(Debug, Clone, Copy)]
pub struct Applying {
    pub claimed: Timestamp,
    pub committed: Timestamp,
}

impl Tracer {
    /// Records what the listener did with `event`, if it is traced. `set_aside`: it is a dead letter now.
    pub fn applied(&self, event: &Accepted, applying: Applying, set_aside: Option<Reason>) {
        let trace = &event.envelope.trace;
        if !trace.sampled {
            return;
        }
        self.record(3, || {
            let subject = Arc::new(Subject::of(&event.envelope));
            let (claim_id, apply_id, publish_id) = (self.span_id(), self.span_id(), self.span_id());
            let span = |step, span_id, parent_id, begun, ended| Span {
                step,
                trace_id: trace.trace_id,
                span_id,
                parent_id,
                parent_is_remote: false,
                begun,
                ended,
                subject: Some(Arc::clone(&subject)),
                facts: Vec::new(),
                failure: None,
            };
            let Applying { claimed, committed } = applying;
            let parent_id = trace.parent_id;
            let mut claim = span(Step::Claim, claim_id, parent_id, event.received_at, claimed);
            // The parent may be of a process that ended since.
            claim.parent_is_remote = parent_id != [0; 8];
            let mut apply = span(Step::Apply, apply_id, claim_id, claimed, committed);
            if let Some(reason) = set_aside {
                apply.facts.push(KeyValue::new("sentinel.dead_letter.reason", reason.as_str()));
                apply.failure = Some(Cow::Borrowed("the event is set aside as a dead letter"));
            }
            let publish = span(Step::Publish, publish_id, apply_id, committed, self.now());
            vec![claim, apply, publish]
        });
    }
}
