//! One event is one trace: receive, durable, claim, apply, publish. This module decides which traces are recorded and
//! hands what was recorded to the exporter.
//!
//! A span is recorded once it is over, as a plain fact: what was done, from when to when, under which span. Nothing
//! runs along with the event but the trace context that is stored with it anyway. So a trace that is not sampled
//! costs a look at a flag, and where there is no collector there is no [`Tracer`] to look with.
//!
//! Recording never waits. The queue to the exporter is bounded in spans; what finds no room is dropped and counted.

mod span;
mod stages;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::{self, Receiver, Sender};
use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample};
use prometheus_client::metrics::counter::Counter;

use crate::config::{RootSampler, Sampling, Traces};
use crate::domain::event::TraceContext;
use crate::domain::time::Timestamp;
use crate::room::{Room, Rooms};

pub use span::{Span, Step, Subject};
pub use stages::{Applying, Durable, Opened, Receiving, Request};

/// Events of one request that are traced each on its own; the others are counted in the spans of the request. A batch
/// of a thousand is one act, and three spans for each of its events would cost more than to store them.
pub const EVENTS_PER_REQUEST_MAX: usize = 32;

/// Spans on their way to the exporter, with the room that they take up.
pub struct Recorded {
    spans: Vec<Span>,
    _room: Room,
}

impl Recorded {
    /// The spans, whose room is free again.
    pub fn into_spans(self) -> Vec<Span> {
        self.spans
    }
}

/// Records the traces of this service. Clones share one queue.
#[derive(Clone)]
pub struct Tracer(Arc<Shared>);

struct Shared {
    parent_based: bool,
    root: Sampler,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    recorded: Sender<Recorded>,
    rooms: Arc<Rooms>,
    dropped: Counter,
    /// What the next span's id is made of (splitmix64), seeded from the system.
    next_id: AtomicU64,
}

impl Tracer {
    /// A tracer and the end where its spans come out. `dropped` counts what finds no room.
    pub fn new(
        settings: &Traces,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        dropped: Counter,
    ) -> (Self, Receiver<Recorded>) {
        let Sampling { parent_based, root } = settings.sampling;
        // A message holds one span at least, so the channel is never full before the rooms are.
        let (recorded, queue) = channel::bounded(settings.queue_spans_max);
        let (_, seed) = uuid::Uuid::now_v7().as_u64_pair();
        let tracer = Self(Arc::new(Shared {
            parent_based,
            root: match root {
                RootSampler::AlwaysOn => Sampler::AlwaysOn,
                RootSampler::AlwaysOff => Sampler::AlwaysOff,
                RootSampler::TraceIdRatio(share) => Sampler::TraceIdRatioBased(share),
            },
            clock,
            recorded,
            rooms: Rooms::new(settings.queue_spans_max),
            dropped,
            next_id: AtomicU64::new(seed),
        }));
        (tracer, queue)
    }

    /// The time by the clock of the store, as all spans have it.
    pub fn now(&self) -> Timestamp {
        (self.0.clock)()
    }

    /// Whether a trace that comes in with `trace` is recorded. All zero as the parent means that it begins here.
    pub fn samples(&self, trace: &TraceContext) -> bool {
        if self.0.parent_based && trace.parent_id != [0; 8] {
            return trace.sampled;
        }
        let id = TraceId::from_bytes(trace.trace_id);
        let name = Step::Receive.as_str();
        let result = self.0.root.should_sample(None, id, name, &SpanKind::Server, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    /// The context of a trace that begins here with no request.
    pub fn begin(&self) -> TraceContext {
        let mut trace_id = [0; 16];
        trace_id[..8].copy_from_slice(&self.span_id());
        trace_id[8..].copy_from_slice(&self.span_id());
        let trace = TraceContext { trace_id, parent_id: [0; 8], sampled: false };
        TraceContext { sampled: self.samples(&trace), ..trace }
    }

    /// A span's id. Never zero, which would mean no span.
    fn span_id(&self) -> [u8; 8] {
        loop {
            let state = self.0.next_id.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let id = z ^ (z >> 31);
            if id != 0 {
                return id.to_be_bytes();
            }
        }
    }

    /// Hands the `count` spans that `make` makes to the exporter. Where there is no room they are not even made.
    fn record(&self, count: usize, make: impl FnOnce() -> Vec<Span>) {
        let sent = self.0.rooms.take(count).is_ok_and(|room| {
            self.0.recorded.try_send(Recorded { spans: make(), _room: room }).is_ok()
        });
        if !sent {
            self.0.dropped.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests;
