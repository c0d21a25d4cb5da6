//! Sends recorded spans to the collector. This module is the `exporter` thread.
//!
//! The SDK has a batch processor of its own, with a thread of its own. It is not used, because here a thread is a
//! component that is named, watched and stopped like any other, and what is lost is counted where an operator looks.
//! Everything else is the SDK's: what a span is, the resource, the encoding, which failures are worth a second try.
//!
//! What must stay true: nobody waits for this thread. A collector that is dead costs spans, which are dropped and
//! counted, and a stop takes at most two times the bound for one batch, which is a part of the drain deadline.

mod collector;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use crossbeam::channel::{Receiver, Sender};
use crossbeam::select;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::HttpClient;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use ureq::tls::TlsConfig;

use crate::component::{Component, Stop, step_back};
use crate::config::Traces;
use crate::telemetry::metrics::{ChannelLabel, Metrics};
use crate::telemetry::process::host_name;
use crate::telemetry::traces::Recorded;
use collector::Collector;

/// The share of the drain deadline that one batch may take: one is under way when the stop comes, one is left, and the
/// threads before this one need some time, too.
const DRAIN_SHARE: u32 = 3;
/// How long nothing is waited for but a message or the stop.
const IDLE: Duration = Duration::from_secs(3600);
const SCOPE: &str = "sentinel";

/// What the exporter works with.
pub struct Exporter {
    otlp: SpanExporter,
    collector: Arc<Collector>,
    scope: InstrumentationScope,
    metrics: Arc<Metrics>,
    /// The longest time for a batch.
    within: Duration,
    batch_spans_max: usize,
    batch_wait: Duration,
    /// Whether the last batch was answered with a success: then it is worth trying the next one.
    answers: bool,
    /// Whether the last batch was taken whole.
    is_taken: bool,
}

impl Exporter {
    /// An exporter to the collector of `settings`, spoken to by `tls`, in a service that stops within `drain`.
    ///
    /// # Errors
    /// When the OTLP library does not take the settings.
    pub fn new(
        settings: &Traces,
        tls: TlsConfig,
        drain: Duration,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let within = settings.timeout.min(drain / DRAIN_SHARE);
        let collector = Arc::new(Collector::new(settings, tls));
        let mut otlp = SpanExporter::builder()
            .with_http()
            .with_shared_http_client(Arc::clone(&collector) as Arc<dyn HttpClient>)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(settings.endpoint.as_str())
            .with_timeout(within)
            .build()
            .context("the exporter of traces")?;
        otlp.set_resource(&resource(settings));
        Ok(Self {
            otlp,
            collector,
            scope: InstrumentationScope::builder(SCOPE)
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            metrics,
            within,
            batch_spans_max: settings.batch_spans_max,
            batch_wait: settings.batch_wait,
            answers: true,
            is_taken: true,
        })
    }

    /// Sends batches until it is time to stop.
    fn run(&mut self, recorded: &Receiver<Recorded>, stop: &Stop) {
        let label = ChannelLabel { channel: "exporter" };
        let depth = self.metrics.channel_depth.get_or_create_owned(&label);
        let mut batch = Vec::with_capacity(self.batch_spans_max);
        let mut due = None;
        while !stop.is_set() {
            let wait =
                due.map_or(IDLE, |due: Instant| due.saturating_duration_since(Instant::now()));
            select! {
                recv(recorded) -> message => match message {
                    Ok(message) => {
                        due.get_or_insert_with(|| Instant::now() + self.batch_wait);
                        self.add(message, &mut batch);
                    }
                    // Nobody records any more; what is left is to wait for the stop.
                    Err(_) => {
                        let _ = stop.channel().recv();
                    }
                },
                recv(stop.channel()) -> _stop => {}
                default(wait) => {}
            }
            let is_due = due.is_some_and(|due| due <= Instant::now());
            if is_due && !batch.is_empty() {
                self.send(&mut batch, self.within);
            }
            if batch.is_empty() {
                due = None;
            }
            depth.set(i64::try_from(recorded.len()).unwrap_or(i64::MAX));
        }
        self.flush(recorded, batch);
    }

    /// Takes the spans of a message, and sends the batch whenever it is full.
    fn add(&mut self, message: Recorded, batch: &mut Vec<SpanData>) {
        for span in message.into_spans() {
            batch.push(span.into_data(&self.scope));
            if batch.len() >= self.batch_spans_max {
                self.send(batch, self.within);
            }
        }
    }

    /// Sends what is left, as long as the collector takes it and the time for one batch lasts.
    fn flush(&mut self, recorded: &Receiver<Recorded>, mut batch: Vec<SpanData>) {
        let deadline = Instant::now() + self.within;
        let mut left = recorded.try_iter().flat_map(Recorded::into_spans);
        loop {
            let room = self.batch_spans_max.saturating_sub(batch.len());
            let more = left.by_ref().take(room).map(|span| span.into_data(&self.scope));
            batch.extend(more);
            if batch.is_empty() {
                return;
            }
            let within = deadline.saturating_duration_since(Instant::now());
            if self.answers && !within.is_zero() {
                self.send(&mut batch, within);
            } else {
                self.lose(batch.len());
                batch.clear();
            }
        }
    }

    /// Sends a batch, and empties it whatever comes of it.
    fn send(&mut self, batch: &mut Vec<SpanData>, within: Duration) {
        let spans = std::mem::replace(batch, Vec::with_capacity(self.batch_spans_max));
        let count = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        self.collector.answer_by(Instant::now() + within);
        let sent = futures_executor::block_on(self.otlp.export(spans));
        self.answers = sent.is_ok();
        let rejected = self.collector.rejected().min(count);
        let lost = if sent.is_ok() { rejected } else { count };
        self.metrics.spans_exported.inc_by(count - lost);
        self.metrics.spans_dropped.inc_by(lost);
        let was_taken = std::mem::replace(&mut self.is_taken, lost == 0);
        if lost == 0 && !was_taken {
            log::info!("{} takes traces again", self.collector);
        } else if lost > 0 && was_taken {
            let error = || sent.err().map(|error| error.to_string()).unwrap_or_default();
            let why = self.collector.trouble().unwrap_or_else(error);
            log::warn!(
                "{} does not take the traces: {why}; spans are dropped and counted until it does",
                self.collector
            );
        }
    }

    fn lose(&self, spans: usize) {
        self.metrics.spans_dropped.inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
    }
}

/// Starts the exporter thread.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    mut exporter: Exporter,
    recorded: Receiver<Recorded>,
    ended: Sender<String>,
) -> io::Result<Component> {
    Component::start("exporter", ended, move |stop| {
        // Whoever posts waits for intake; nobody waits for a span.
        step_back();
        exporter.run(&recorded, &stop);
        Ok(())
    })
}

/// What the spans of this process have in common. What the operator says goes before what we know.
fn resource(settings: &Traces) -> Resource {
    let own = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("host.name", host_name()),
        KeyValue::new("service.instance.id", format!("{}/{}", host_name(), std::process::id())),
        KeyValue::new("telemetry.sdk.name", "opentelemetry"),
        KeyValue::new("telemetry.sdk.language", "rust"),
    ];
    let given =
        settings.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
    let is_named = settings.resource.iter().any(|(name, _)| name == "service.name");
    let name = (!is_named || settings.service_name_is_given)
        .then(|| KeyValue::new("service.name", settings.service_name.clone()));
    Resource::builder_empty().with_attributes(own.into_iter().chain(given).chain(name)).build()
}
