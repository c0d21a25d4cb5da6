//! The wiring: which threads there are, what each owns, in which order they start and stop. This module is the only
//! one that starts components.
//!
//! Start goes from the store outwards, stop from the doors inwards: first readiness fails, then the poll loops answer
//! what is in flight and end, then the threads behind them, each after the last one that feeds it. One deadline
//! holds for all, and whoever misses it is named.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use crossbeam::channel::{self, Receiver, Sender};
use parking_lot::Mutex;

use crate::certificates::ServerIdentity;
use crate::component::{Component, End};
use crate::config::{Config, Database, Mode, OracleDatabase};
use crate::domain::process::Policy;
use crate::domain::time::Timestamp;
use crate::exporter::Exporter;
use crate::http::Port;
use crate::http::auth::{self, Authenticator, Refresher};
use crate::http::front::{Front, FrontHandle};
use crate::http::limits::Limits;
use crate::http::{turns, worker};
use crate::keeper::{self, Keeper};
use crate::listener::{self, Listener, Watermark};
use crate::live::Hub;
use crate::reaper::{self, Clocks, Reaper};
use crate::room::Rooms;
use crate::routes::lobby::Lobby;
use crate::routes::{Desk, Shared};
use crate::store::oracle::{self, Oracle};
use crate::store::sqlite::{Settings, Sqlite};
use crate::store::{IntakeSession, Store, WriteState};
use crate::tail::{self, Tail};
use crate::telemetry::metrics::{Metrics, ThreadLabel};
use crate::telemetry::process;
use crate::telemetry::traces::{Recorded, Tracer};
use crate::{exporter, intake, log_writer};

/// The store's clock as a value, so that tests can move it by hand.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The wall clock.
pub fn wall_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    })
}

/// Which of the threads are started, for tests that drive one of them by hand.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    pub listener: bool,
    pub reaper: bool,
    pub keeper: bool,
}

impl Parts {
    pub const ALL: Self = Self { listener: true, reaper: true, keeper: true };
}

/// A running service.
pub struct Service {
    /// In the order in which they stop.
    components: Vec<Component>,
    /// Every thread that ends says its name here.
    ended: Receiver<String>,
    draining: Arc<AtomicBool>,
    front: Front,
    identities: Vec<Arc<ServerIdentity>>,
    loops: FrontHandle,
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    shared: Arc<Shared>,
    drain: Duration,
    threads: Arc<Threads>,
}

/// The names of the threads and whether each still runs.
#[derive(Default)]
struct Threads(Mutex<Vec<(String, bool)>>);

impl Service {
    /// Starts everything and returns as soon as it serves.
    ///
    /// # Errors
    /// When the store cannot be opened, a port cannot be bound or a thread cannot be started. Nothing is left behind.
    pub fn start(config: &Config, clock: Clock, parts: Parts) -> anyhow::Result<Self> {
        Self::start_with(config, clock, parts, None)
    }

    /// Starts everything with another intake session than the store's: for measurements without storage.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub fn start_with_intake(
        config: &Config,
        clock: Clock,
        parts: Parts,
        intake: Box<dyn IntakeSession>,
    ) -> anyhow::Result<Self> {
        Self::start_with(config, clock, parts, Some(intake))
    }

    fn start_with(
        config: &Config,
        clock: Clock,
        parts: Parts,
        intake: Option<Box<dyn IntakeSession>>,
    ) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new());
        let (says_ended, ended) = channel::unbounded();
        let policy = policy(config);
        let store = open_store(config, &clock)?;
        // Receipts and silence go by the store's clock, which may be that of another machine (law 4).
        let clock: Clock = {
            let store = Arc::clone(&store);
            Arc::new(move || store.now())
        };
        let (authenticator, keys) =
            Authenticator::new(config).context("the keys that tokens are checked with")?;
        let mut front =
            Front::bind(config.listen, config.metrics, config.http_loops, limits(config))
                .with_context(|| bind_advice(config))?;
        let identities = secure(&mut front, config)?;

        // One tenant gets half of it at most (`room.rs`).
        let queue_capacity = config.queue_capacity * 2;
        let (postings, posted) = channel::bounded(queue_capacity);
        let (log_postings, log_posted) = channel::bounded(queue_capacity);
        let (tracer, spans) = tracing(config, &clock, &metrics)?.unzip();
        let draining = Arc::new(AtomicBool::new(false));
        let threads = Arc::new(Threads::default());
        let shared = Arc::new(Shared {
            store: Arc::clone(&store),
            authenticator,
            postings: postings.clone(),
            event_rooms: Rooms::new(queue_capacity),
            log_postings,
            log_rooms: Rooms::new(queue_capacity),
            payload_rooms: Rooms::new(config.inflight_bytes_max),
            live: Arc::new(Hub::default()),
            // One tenant alone gets half of it, and half of one place is none.
            wait_rooms: Rooms::new(config.connections_max.max(2)),
            metrics: Arc::clone(&metrics),
            tracer,
            body_bytes_max: config.body_bytes_max,
            batch_bytes_max: config.batch_bytes_max,
            development: config.mode == Mode::Development,
            client_auth: config.tls.client_auth(),
            draining: Arc::clone(&draining),
            front: front.handle(),
            threads: {
                let threads = Arc::clone(&threads);
                Arc::new(move || threads.0.lock().clone())
            },
        });

        let mut service = Self {
            components: Vec::new(),
            ended,
            draining,
            loops: front.handle(),
            front,
            identities,
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            shared: Arc::clone(&shared),
            drain: config.shutdown_timeout,
            threads,
        };
        let watermark = Arc::new(Watermark::default());
        let started = service.start_threads(
            config,
            &clock,
            parts,
            &says_ended,
            keys,
            Feeds { posted, log_posted, postings, watermark, policy, intake, spans },
        );
        if let Err(error) = started {
            // What did start must not outlive the attempt.
            let _ = service.stop();
            return Err(error);
        }
        Ok(service)
    }

    fn start_threads(
        &mut self,
        config: &Config,
        clock: &Clock,
        parts: Parts,
        ended: &Sender<String>,
        keys: Option<Refresher>,
        feeds: Feeds,
    ) -> anyhow::Result<()> {
        let Feeds { posted, log_posted, postings, watermark, policy, intake, spans } = feeds;
        let (store, metrics) = (Arc::clone(&self.store), Arc::clone(&self.metrics));
        // From the store outwards. `components` is kept in stop order, so each one goes before those it feeds.
        let mut inward: Vec<Component> = Vec::new();
        if let Some((exporter, recorded)) = spans {
            inward.push(exporter::start(exporter, recorded, ended.clone())?);
        }
        if parts.keeper {
            let keeper = Keeper::new(config.retention, Arc::clone(clock), Arc::clone(&metrics));
            inward.push(keeper::start(store.keeper()?, keeper, ended.clone())?);
        }
        let tail = store.tail()?;
        let has_tail = tail.is_some();
        if let Some(session) = tail {
            let (hub, metrics) = (Arc::clone(&self.shared.live), Arc::clone(&metrics));
            inward.push(tail::start(session, Tail { hub, metrics }, ended.clone())?);
        }
        if parts.listener {
            for n in 0..config.listener_threads {
                let listener = self.listener(clock, policy, &watermark);
                let session = self.shared.live.announcing_events(store.listener()?);
                inward.push(listener::start(n, session, listener, ended.clone())?);
            }
        }
        for n in 0..config.log_writer_threads {
            let shedding = {
                let store = Arc::clone(&store);
                Arc::new(move || store.write_state() != WriteState::Open)
            };
            // Where there is a tail, lines are shown some time after their commit, and the tail tells when.
            let session = store.logs()?;
            let session =
                if has_tail { session } else { self.shared.live.announcing_logs(session) };
            inward.push(log_writer::start(
                format!("logs-{n}"),
                session,
                log_posted.clone(),
                config.log_batch_rows,
                shedding,
                Arc::clone(&metrics),
                ended.clone(),
            )?);
        }
        let session = match intake {
            Some(session) => session,
            None => store.intake()?,
        };
        inward.push(intake::start(
            session,
            posted,
            Arc::clone(clock),
            Arc::clone(&metrics),
            ended.clone(),
        )?);
        if parts.reaper {
            let reaper = {
                let (writes, logs) = (Arc::clone(&store), Arc::clone(&store));
                let takes_writes =
                    Arc::new(move || !matches!(writes.write_state(), WriteState::Closed(_)));
                let takes_logs = Arc::new(move || logs.write_state() == WriteState::Open);
                Reaper::new(policy, instance(), watermark, postings, takes_writes)
                    .hearing_logs_while(takes_logs)
                    .timed_by(Arc::clone(&metrics))
                    .traced_by(self.shared.tracer.clone())
            };
            let begun = Instant::now();
            let clocks =
                Clocks { wall: Arc::clone(clock), steady: Arc::new(move || begun.elapsed()) };
            inward.push(reaper::start(store.keeper()?, reaper, clocks, ended.clone())?);
        }
        if let Some(keys) = keys {
            inward.push(keys.start(ended.clone())?);
        }
        let (jobs, job_queue) = turns::bounded(config.queue_capacity);
        for n in 0..config.worker_threads {
            let desk = Desk::new(Arc::clone(&self.shared))?;
            inward.push(worker::start(n, desk, job_queue.clone(), ended.clone())?);
        }
        for n in 0..config.http_loops {
            let desk = Desk::new(Arc::clone(&self.shared))?;
            inward.push(self.front.start_loop(n, desk, jobs.clone(), ended.clone())?);
        }
        inward.reverse();
        for component in &inward {
            self.metrics
                .thread_up
                .get_or_create(&ThreadLabel { thread: component.name().to_owned() })
                .set(1);
            self.threads.0.lock().push((component.name().to_owned(), true));
        }
        self.components = inward;
        Ok(())
    }

    /// What the listener works with besides its session.
    pub fn listener(&self, clock: &Clock, policy: Policy, watermark: &Arc<Watermark>) -> Listener {
        let store = Arc::clone(&self.store);
        Listener {
            policy,
            clock: Arc::clone(clock),
            backlog: Arc::new(move || store.backlog()),
            metrics: Arc::clone(&self.metrics),
            watermark: Arc::clone(watermark),
            applied: None,
            retry_pause: listener::RETRY_PAUSE,
            unclear: listener::Unclear::default(),
            tracer: self.shared.tracer.clone(),
        }
    }

    /// Where the API listens.
    pub fn api_address(&self) -> SocketAddr {
        self.front.api_address()
    }

    /// Where the metrics port listens, if there is one.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.front.metrics_address()
    }

    /// Says the names of threads that end.
    pub fn ended(&self) -> &Receiver<String> {
        &self.ended
    }

    /// The metrics of this service.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The store of this service.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The way in for postings from inside this process.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Notes that a thread has ended although nobody asked it to.
    pub fn note_ended(&self, name: &str) {
        self.metrics.thread_up.get_or_create(&ThreadLabel { thread: name.to_owned() }).set(0);
        for thread in self.threads.0.lock().iter_mut().filter(|thread| thread.0 == name) {
            thread.1 = false;
        }
    }

    /// The threads that have been at one step for longer than they may at `now`, and for how long.
    pub fn stalled(&self, now: Instant) -> Vec<(String, Duration)> {
        let stalled = |component: &Component| {
            component.stalled(now).map(|took| (component.name().to_owned(), took))
        };
        self.components.iter().filter_map(stalled).collect()
    }

    /// Reads the certificates again. New connections get the new ones, open ones go on as they are.
    pub fn reload_certificates(&self) {
        self.identities.iter().for_each(|identity| identity.reload());
    }

    /// Reads the certificates again whose files have changed.
    pub fn look_at_certificates(&self) {
        self.identities.iter().for_each(|identity| identity.look());
    }

    /// Whether there are certificates to look at.
    pub fn has_certificates(&self) -> bool {
        !self.identities.is_empty()
    }

    /// Makes `/ready` fail, so that balancers send nothing new here.
    pub fn fail_readiness(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Drains and stops everything, from the doors inwards, within the drain deadline.
    ///
    /// # Errors
    /// The error of the first thread that failed, else the names of those that missed the deadline.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.fail_readiness();
        let deadline = Instant::now() + self.drain;
        let mut first_error = None;
        let mut stragglers = Vec::new();
        // Each group is told together and awaited together; a group ends before the one that serves it is told.
        let mut rest = std::mem::take(&mut self.components);
        while !rest.is_empty() {
            let stage = stage(rest[0].name());
            let same =
                rest.iter().take_while(|component| self::stage(component.name()) == stage).count();
            let mut group: Vec<Component> = rest.drain(..same).collect();
            group.iter_mut().for_each(Component::stop);
            self.loops.wake();
            for component in &mut group {
                match component.join_by(deadline) {
                    End::Clean => log::debug!("thread {} has stopped", component.name()),
                    End::Failed(error) => {
                        log::error!("thread {} failed: {error:#}", component.name());
                        first_error.get_or_insert(error);
                    }
                    End::Straggler => stragglers.push(component.name().to_owned()),
                }
            }
        }
        if first_error.is_none()
            && stragglers.is_empty()
            && let Err(error) = self.store.rest()
        {
            log::warn!("the store was not put to rest: {error}");
        }
        match first_error {
            Some(error) => Err(error),
            None if stragglers.is_empty() => Ok(()),
            None => {
                anyhow::bail!("did not stop within {:?}: {}", self.drain, stragglers.join(", "))
            }
        }
    }
}

/// The ports of a service whose store cannot be opened yet.
pub struct Waiting {
    loops: FrontHandle,
    component: Component,
    /// The loop's end of this is never served: nothing here needs a worker.
    _jobs: turns::Receiver<worker::Job<Lobby>>,
}

impl Waiting {
    /// Opens the ports, and tells everybody who asks `why` there is nothing else yet.
    ///
    /// # Errors
    /// When a port cannot be bound or the thread cannot be started.
    pub fn start(config: &Config, why: &str) -> anyhow::Result<Self> {
        let mut front = Front::bind(config.listen, config.metrics, 1, limits(config))
            .with_context(|| bind_advice(config))?;
        secure(&mut front, config)?;
        let (jobs, queue) = turns::bounded(1);
        let (ended, _) = channel::unbounded();
        let lobby = Lobby::new(Arc::from(why), config.mode == Mode::Development);
        let component = front.start_loop(0, lobby, jobs, ended)?;
        log::warn!(address:% = front.api_address(); "serving nothing but probes: {why}");
        Ok(Self { loops: front.handle(), component, _jobs: queue })
    }

    /// Closes the ports, for the service to open them again.
    pub fn stop(mut self, within: Duration) {
        self.component.stop();
        self.loops.wake();
        let _ = self.component.join_by(Instant::now() + within);
    }
}

/// What the threads are fed with.
struct Feeds {
    posted: Receiver<intake::Posting>,
    log_posted: Receiver<log_writer::LogPosting>,
    postings: Sender<intake::Posting>,
    watermark: Arc<Watermark>,
    policy: Policy,
    intake: Option<Box<dyn IntakeSession>>,
    /// None: there are no traces.
    spans: Option<Spans>,
}

/// What the exporter thread is started with.
type Spans = (Exporter, Receiver<Recorded>);

/// What traces are recorded with, and what they are sent with. None: there is no collector.
fn tracing(
    config: &Config,
    clock: &Clock,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Option<(Tracer, Spans)>> {
    let Some(settings) = &config.traces else { return Ok(None) };
    let tls =
        auth::tls(settings.ca_file.as_deref(), None).context("OTEL_EXPORTER_OTLP_CERTIFICATE")?;
    let (drain, counted) = (config.shutdown_timeout, Arc::clone(metrics));
    let exporter = Exporter::new(settings, tls, drain, counted)?;
    let dropped = metrics.spans_dropped.clone();
    let (tracer, recorded) = Tracer::new(settings, Arc::clone(clock), dropped);
    Ok(Some((tracer, (exporter, recorded))))
}

/// The part of a thread's name that all of its kind share.
fn stage(name: &str) -> &str {
    name.split_once('-').map_or(name, |(stage, _)| stage)
}

/// Opens the store that the configuration names.
fn open_store(config: &Config, clock: &Clock) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match &config.database {
        Database::Embedded => {
            let settings = Settings { clock: Arc::clone(clock), ..settings(config) };
            Arc::new(Sqlite::open(settings)?)
        }
        Database::Oracle(database) => {
            let settings = oracle::Settings {
                policy: policy(config),
                retention: config.retention,
                idempotency: config.idempotency_window,
                clock: Arc::clone(clock),
                ..oracle_settings(database)
            };
            Arc::new(Oracle::open(settings)?)
        }
    })
}

/// What of the address an Oracle store goes by; the rest are the defaults of the contract.
pub fn oracle_settings(database: &OracleDatabase) -> oracle::Settings {
    oracle::Settings {
        schema: database.schema.clone(),
        queue: database.queue.clone(),
        care: database.care(),
        ..oracle::Settings::new(database.address.clone())
    }
}

/// What of the configuration the embedded store goes by.
pub fn settings(config: &Config) -> Settings {
    Settings {
        policy: policy(config),
        retention: config.retention,
        idempotency: config.idempotency_window,
        log_keep: config.log_keep,
        min_free_bytes: config.free_bytes_min,
        ..Settings::new(&config.data_folder)
    }
}

/// How long silence is borne.
pub fn policy(config: &Config) -> Policy {
    Policy { timeout: config.process_timeout, heartbeat_interval: config.heartbeat_interval }
}

/// Has the ports speak TLS that are to.
fn secure(front: &mut Front, config: &Config) -> anyhow::Result<Vec<Arc<ServerIdentity>>> {
    let ports =
        [(Port::Api, "API", &config.tls.api), (Port::Metrics, "metrics", &config.tls.metrics)];
    let mut identities = Vec::new();
    for (port, name, files) in ports {
        let Some(files) = files else { continue };
        let identity = ServerIdentity::open(name, files.clone())
            .with_context(|| format!("the certificate of the {name} port"))?;
        front.secure(port, &identity);
        identities.push(identity);
    }
    Ok(identities)
}

fn limits(config: &Config) -> Limits {
    Limits {
        connections_max: config.connections_max,
        connections_per_ip_max: config.connections_per_ip_max,
        bodies_bytes_max: config.inflight_bytes_max,
        // Whoever still takes its time then is cut off, and the threads behind the loops get the rest to end cleanly.
        drain_time: config.shutdown_timeout * 4 / 5,
        ..Limits::default()
    }
}

/// This instance, for people who read a judgement.
fn instance() -> String {
    format!("{}/{}", process::host_name(), std::process::id())
}

fn bind_advice(config: &Config) -> String {
    let metrics = config.metrics.map_or_else(String::new, |metrics| {
        format!(" or {metrics} (PROMETHEUS_METRICS_PORT, 0 turns it off)")
    });
    format!("cannot listen on {} (SENTINEL_HTTP_PORT, or --bind){metrics}", config.listen)
}
