//! A span: what was done, from when to when, under which span. This module gives it the shape that the OpenTelemetry
//! SDK exports.
//!
//! A span knows names and times and never a payload, so waiting for the exporter holds no payload in memory and sends
//! none anywhere.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, StringValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::domain::event::Envelope;
use crate::domain::ids::{
    EventId, EventType, IdempotencyKey, ProcessId, Source, StreamKey, TenantId,
};
use crate::domain::process::mark::is_process_type;
use crate::domain::time::Timestamp;

/// The steps of an event's way. A closed set: they are the names of the spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// From the head of the request to the reply.
    Receive,
    /// From the hand-over to the intake thread to the commit.
    Durable,
    /// From the acceptance to the claim: how long the event waited.
    Claim,
    /// From the claim to the commit of its effect.
    Apply,
    /// From that commit until everybody who watches was told.
    Publish,
}

impl Step {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Durable => "durable",
            Self::Claim => "claim",
            Self::Apply => "apply",
            Self::Publish => "publish",
        }
    }

    const fn kind(self) -> SpanKind {
        match self {
            Self::Receive => SpanKind::Server,
            Self::Durable | Self::Publish => SpanKind::Producer,
            Self::Claim => SpanKind::Consumer,
            Self::Apply => SpanKind::Internal,
        }
    }
}

/// Which event a span is about.
#[derive(Debug)]
pub struct Subject {
    tenant: TenantId,
    event_id: EventId,
    event_type: EventType,
    source: Source,
    stream: StreamKey,
    key: Option<IdempotencyKey>,
    process: Option<ProcessId>,
}

impl Subject {
    /// What names the event; not what it says.
    pub fn of(envelope: &Envelope) -> Self {
        let drives = is_process_type(envelope.event_type.as_str());
        Self {
            tenant: envelope.tenant.clone(),
            event_id: envelope.event_id.clone(),
            event_type: envelope.event_type.clone(),
            source: envelope.source.clone(),
            stream: envelope.stream.clone(),
            key: envelope.key.clone(),
            process: if drives { envelope.stream.process() } else { None },
        }
    }

    fn attributes(&self) -> impl Iterator<Item = KeyValue> {
        let key = self.key.as_ref().map(IdempotencyKey::as_str);
        let process = self.process.as_ref().map(ProcessId::as_str);
        [
            ("tenant.id", Some(self.tenant.as_str())),
            ("event.id", Some(self.event_id.as_str())),
            ("event.type", Some(self.event_type.as_str())),
            ("source", Some(self.source.as_str())),
            ("streamKey", Some(self.stream.as_str())),
            ("idempotencyKey", key),
            ("process.id", process),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some(KeyValue::new(name, StringValue::from(value?.to_owned()))))
    }
}

/// One step that is over.
#[derive(Debug)]
pub struct Span {
    pub step: Step,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// All zero: the trace begins with this span.
    pub parent_id: [u8; 8],
    /// The parent is another service's.
    pub parent_is_remote: bool,
    pub begun: Timestamp,
    pub ended: Timestamp,
    /// None: it is about a whole request, whose facts say which.
    pub subject: Option<Arc<Subject>>,
    pub facts: Vec<KeyValue>,
    /// Why it failed.
    pub failure: Option<Cow<'static, str>>,
}

impl Span {
    /// The span as the SDK exports it, recorded by `scope`.
    pub fn into_data(self, scope: &InstrumentationScope) -> SpanData {
        let mut attributes = self.facts;
        attributes.extend(self.subject.iter().flat_map(|subject| subject.attributes()));
        SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(self.trace_id),
                SpanId::from_bytes(self.span_id),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::from_bytes(self.parent_id),
            parent_span_is_remote: self.parent_is_remote,
            span_kind: self.step.kind(),
            name: Cow::Borrowed(self.step.as_str()),
            start_time: system_time(self.begun),
            // The wall clock may have been set back meanwhile, and no span ends before it begins.
            end_time: system_time(self.ended.max(self.begun)),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: match self.failure {
                Some(description) => Status::Error { description },
                None => Status::Unset,
            },
            instrumentation_scope: scope.clone(),
        }
    }
}

fn system_time(moment: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(moment.micros()).unwrap_or(0))
}
