//! Finds processes that have been silent for too long and says so with an event. This module is the `reaper` thread.
//!
//! Silence proves nothing: the process may be dead, slow, or cut off from us. So an expiry is an event like any
//! other, posted through intake under an id that follows from what was judged: said twice it is one event, and any
//! later sign of life undoes it (law 4).
//!
//! Where a store knows which session of the database started a process, and that session is gone, nobody needs to wait
//! for the deadline: it is judged as soon as everything that the session can have said has been applied. It is told
//! once: whoever goes on with the process afterwards is another session, and has the deadline.
//!
//! # When nobody is judged
//!
//! Whoever was kept from being heard must first get the time to be heard. So nothing is judged beyond the
//! watermark, nor before one heartbeat interval has passed since the reaper began, since the store refused a write
//! or a read, or since the wall clock jumped against the steady one (a suspended machine, a corrected clock). While log
//! rows are shed, nobody is judged who has ever said some: they may be all that shows that it lives.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{SendTimeoutError, Sender};

use crate::component::Component;
use crate::domain::event::{Envelope, TraceContext, Verdict};
use crate::domain::process::Policy;
use crate::domain::process::expiry::{self, Verdict as Judgement, Why};
use crate::domain::time::Timestamp;
use crate::intake::Posting;
use crate::listener::Watermark;
use crate::mailbox::{Address, Answer, ChannelMailbox, ReplyTo};
use crate::store::{KeeperSession, Overdue, Result};
use crate::telemetry::metrics::{Metrics, StoreCall};
use crate::telemetry::traces::Tracer;

/// Processes judged in one pass. The rest is found by the next one.
pub const BATCH_MAX: usize = 500;
/// Between two passes. An expiry is late by this much at most, beside timeouts of minutes.
const PAUSE: Duration = Duration::from_secs(1);
/// Wall and steady clock may differ by this much between two passes before it counts as a jump.
const JUMP_MAX: Duration = Duration::from_secs(5);
/// How long a full channel, and then the answer, is waited for. What is unanswered is judged again, to the same id.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// What the reaper works with besides its session.
pub struct Reaper {
    policy: Policy,
    /// Who judges, for people.
    instance: String,
    watermark: Arc<Watermark>,
    postings: Sender<Posting>,
    /// Whether the store takes writes: while it does not, nobody can be heard.
    takes_writes: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Whether it takes log rows too.
    takes_logs: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Since when, on the steady clock, everybody could be heard. None: not now.
    heard_since: Option<Duration>,
    /// Both clocks at the last pass.
    last: Option<(Timestamp, Duration)>,
    /// Where its store calls are timed.
    metrics: Arc<Metrics>,
    tracer: Option<Tracer>,
}

/// What one pass found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Log rows or a later look proved that they live.
    pub put_off: usize,
    /// Expiries that are durable now, or were already.
    pub expired: usize,
    /// Nothing was judged, because somebody may not have been heard.
    pub held: bool,
}

/// The clocks of a pass: the store's, which may jump, and one that only runs.
pub struct Clocks {
    pub wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    pub steady: Arc<dyn Fn() -> Duration + Send + Sync>,
}

/// Starts the reaper.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    mut session: Box<dyn KeeperSession>,
    mut reaper: Reaper,
    clocks: Clocks,
    ended: Sender<String>,
) -> io::Result<Component> {
    Component::start("reaper", ended, move |stop| {
        while stop.sleep(PAUSE) {
            match reaper.pass(&mut *session, (clocks.wall)(), (clocks.steady)()) {
                Ok(_) => {}
                Err(error) if error.is_transient() => log::warn!("a pass is put off: {error}"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    })
}

impl Reaper {
    pub fn new(
        policy: Policy,
        instance: String,
        watermark: Arc<Watermark>,
        postings: Sender<Posting>,
        takes_writes: Arc<dyn Fn() -> bool + Send + Sync>,
    ) -> Self {
        Self {
            policy,
            instance,
            watermark,
            postings,
            takes_writes,
            takes_logs: Arc::new(|| true),
            heard_since: None,
            last: None,
            metrics: Arc::default(),
            tracer: None,
        }
    }

    /// The same reaper on a store that sheds log rows while `takes_logs` is false.
    #[must_use]
    pub fn hearing_logs_while(self, takes_logs: Arc<dyn Fn() -> bool + Send + Sync>) -> Self {
        Self { takes_logs, ..self }
    }

    /// The same reaper, whose store calls are timed by `metrics`.
    #[must_use]
    pub fn timed_by(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// The same reaper, whose judgements are traced by `tracer`.
    #[must_use]
    pub fn traced_by(self, tracer: Option<Tracer>) -> Self {
        Self { tracer, ..self }
    }

    /// Judges those who are overdue, [`BATCH_MAX`] at most. `now` and `steady` are the two clocks.
    ///
    /// # Errors
    /// Whatever the store says. After it nobody is judged for one heartbeat interval.
    pub fn pass(
        &mut self,
        session: &mut dyn KeeperSession,
        now: Timestamp,
        steady: Duration,
    ) -> Result<Passed> {
        let until = match self.watermark.get() {
            // One that lies ahead is from before the clock was set back: nobody was silent in a time to come.
            Some(until) if self.may_judge(now, steady) => until.min(now),
            Some(_) | None => return Ok(Passed { held: true, ..Passed::default() }),
        };
        let judged = self.judge(session, until);
        if judged.is_err() {
            self.heard_since = None;
        }
        judged
    }

    /// Whether everybody has had one heartbeat interval to be heard.
    fn may_judge(&mut self, now: Timestamp, steady: Duration) -> bool {
        let jumped = self.last.is_some_and(|(last_now, last_steady)| {
            let wall = i128::from(now.micros()) - i128::from(last_now.micros());
            let ran = i128::try_from(steady.saturating_sub(last_steady).as_micros());
            let apart = ran.map_or(u128::MAX, |ran| (wall - ran).unsigned_abs());
            apart > JUMP_MAX.as_micros()
        });
        self.last = Some((now, steady));
        if jumped {
            log::warn!("the wall clock jumped: nobody is judged for one heartbeat interval");
        }
        if jumped || !(self.takes_writes)() {
            self.heard_since = None;
        }
        let since = *self.heard_since.get_or_insert(steady);
        steady.saturating_sub(since) >= self.policy.heartbeat_interval
    }

    fn judge(&mut self, session: &mut dyn KeeperSession, until: Timestamp) -> Result<Passed> {
        let mut passed = Passed::default();
        let metrics = Arc::clone(&self.metrics);
        let mut lost = Vec::new();
        for overdue in metrics.timed(StoreCall::Overdue, || session.overdue(until, BATCH_MAX))? {
            let unheard = overdue.last_log_at.is_some() && !(self.takes_logs)();
            match self.judgement(&overdue, until, Why::Deadline) {
                Judgement::Lost(_) if unheard => {
                    let deadline = until.plus(self.policy.heartbeat_interval);
                    metrics.timed(StoreCall::PutOff, || {
                        session.put_off(&overdue.tenant, &overdue.process, deadline)
                    })?;
                    passed.put_off += 1;
                }
                Judgement::Lost(envelope) => lost.push(*envelope),
                Judgement::Lives { deadline } => {
                    // One that is not waited for at all has no deadline once its next event is applied.
                    let deadline = deadline.unwrap_or_else(|| until.plus(self.policy.timeout));
                    metrics.timed(StoreCall::PutOff, || {
                        session.put_off(&overdue.tenant, &overdue.process, deadline)
                    })?;
                    passed.put_off += 1;
                }
            }
        }
        // One that is lost either way is one event, whichever of the two says so.
        let mut deserted = Vec::new();
        for found in metrics.timed(StoreCall::Deserted, || session.deserted(until, BATCH_MAX))? {
            // Who is not lost has said something that came by another way: the deadline is for them.
            if let Judgement::Lost(envelope) = self.judgement(&found, until, Why::SessionGone) {
                lost.push(*envelope);
                deserted.push((found.tenant, found.process));
            }
        }
        if lost.is_empty() {
            return Ok(passed);
        }
        let named: Vec<_> = lost
            .iter()
            .map(|envelope| (envelope.tenant.clone(), envelope.stream.process()))
            .collect();
        match self.post(lost) {
            Some(durable) => {
                passed.expired = durable.iter().filter(|durable| **durable).count();
                for ((tenant, process), durable) in named.into_iter().zip(durable) {
                    let (Some(process), false) = (process, durable) else { continue };
                    log::error!("the id of an expiry of {process:?} was used for something else");
                    // The longest overdue come first, so those that stay so must not fill the portion of the others.
                    let deadline = until.plus(self.policy.heartbeat_interval);
                    metrics.timed(StoreCall::PutOff, || {
                        session.put_off(&tenant, &process, deadline)
                    })?;
                    passed.put_off += 1;
                }
                // Only now: what is not durable yet must be found again.
                for (tenant, process) in &deserted {
                    session.forget_session(tenant, process)?;
                }
            }
            // The others could not post their heartbeats either.
            None => self.heard_since = None,
        }
        Ok(passed)
    }

    fn judgement(&self, found: &Overdue, until: Timestamp, why: Why) -> Judgement {
        expiry::judge(
            &found.state,
            &found.tenant,
            &found.process,
            &self.policy,
            until,
            found.last_log_at,
            &self.instance,
            why,
            self.trace(),
        )
    }

    /// A trace of its own for each judgement: nobody caused it but time.
    fn trace(&self) -> TraceContext {
        match &self.tracer {
            Some(tracer) => tracer.begin(),
            None => {
                let trace_id = uuid::Uuid::now_v7().into_bytes();
                TraceContext { trace_id, parent_id: [0; 8], sampled: false }
            }
        }
    }

    /// Posts expiries through intake, like everybody's events, and tells of each whether it is durable, now or before.
    /// None: the store took nothing.
    fn post(&self, envelopes: Vec<Envelope>) -> Option<Vec<bool>> {
        let (mailbox, letters) = ChannelMailbox::new();
        let address = Address { slot: 0, generation: 0 };
        let reply = ReplyTo { mailbox, address, context: Box::new(()) };
        match self
            .postings
            .send_timeout(Posting { envelopes, reply, room: None, traced: None }, ANSWER_WAIT)
        {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_) | SendTimeoutError::Disconnected(_)) => return None,
        }
        let letter = letters.recv_timeout(ANSWER_WAIT).ok()?;
        match letter.answer {
            Answer::Verdicts(verdicts) => verdicts
                .iter()
                .map(|verdict| match verdict {
                    Verdict::Accepted(_) | Verdict::Replayed(_) => Some(true),
                    Verdict::KeyReused | Verdict::EventIdReused => Some(false),
                    Verdict::Unavailable(_) => None,
                })
                .collect(),
            Answer::Logged(_) | Answer::Unavailable(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

    use crossbeam::channel;
    use tempfile::TempDir;

    use super::*;
    use crate::domain::event::PayloadHash;
    use crate::domain::ids::{EventType, ProcessId, TenantId};
    use crate::domain::log_row::{Level, LogRow};
    use crate::store::sqlite::{Settings, Sqlite};
    use crate::store::{IntakeSession, Reader, Store};

    const HEARTBEAT: Duration = Duration::from_secs(30);

    /// A whole store, whose time is moved by hand, and a reaper on it.
    struct Site {
        store: Sqlite,
        intake: Box<dyn IntakeSession>,
        keeper: Box<dyn KeeperSession>,
        reader: Box<dyn Reader>,
        reaper: Reaper,
        postings: channel::Receiver<Posting>,
        watermark: Arc<Watermark>,
        takes_writes: Arc<AtomicBool>,
        clock: Arc<AtomicI64>,
        steady: Duration,
        ids: u32,
        _place: TempDir,
    }

    impl Site {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let begin = Timestamp::parse("2026-01-28T10:00:00Z").unwrap().micros();
            let clock = Arc::new(AtomicI64::new(begin));
            let mut settings = Settings::new(place.path());
            settings.clock = {
                let clock = Arc::clone(&clock);
                Arc::new(move || Timestamp::from_micros(clock.load(Ordering::Relaxed)))
            };
            let policy = settings.policy;
            let store = Sqlite::open(settings).unwrap();
            let watermark = Arc::new(Watermark::default());
            let takes_writes = Arc::new(AtomicBool::new(true));
            let (sender, postings) = channel::bounded(1);
            let reaper = Reaper::new(policy, "test".into(), Arc::clone(&watermark), sender, {
                let takes_writes = Arc::clone(&takes_writes);
                Arc::new(move || takes_writes.load(Ordering::Relaxed))
            });
            Self {
                intake: store.intake().unwrap(),
                keeper: store.keeper().unwrap(),
                reader: store.reader().unwrap(),
                store,
                reaper,
                postings,
                watermark,
                takes_writes,
                clock,
                steady: Duration::ZERO,
                ids: 0,
                _place: place,
            }
        }

        /// Time passes on both clocks.
        fn wait(&mut self, pause: Duration) {
            self.jump(pause);
            self.steady += pause;
        }

        /// The wall clock alone moves.
        fn jump(&mut self, pause: Duration) {
            let micros = i64::try_from(pause.as_micros()).unwrap();
            self.clock.fetch_add(micros, Ordering::Relaxed);
        }

        fn post(&mut self, event_type: &str) {
            self.ids += 1;
            let envelope = Envelope::sample(&format!("e{}", self.ids), "import", event_type);
            let now = self.store.now();
            self.intake.accept(now, vec![envelope]).unwrap();
        }

        /// Applies what waits, and moves the watermark to now.
        fn apply(&mut self) {
            let (ended, names) = channel::unbounded();
            let mut listener = crate::listener::Listener {
                policy: self.store.settings().policy,
                clock: Arc::clone(&self.store.settings().clock),
                backlog: Arc::new(|| (0, None)),
                metrics: Arc::default(),
                watermark: Arc::clone(&self.watermark),
                applied: None,
                retry_pause: crate::listener::RETRY_PAUSE,
                unclear: crate::listener::Unclear::default(),
                tracer: None,
            };
            let mut session = self.store.listener().unwrap();
            let body = move |stop: crate::component::Stop| {
                let mut jitter = crate::listener::Jitter::new(0);
                listener.pass(&mut *session, Duration::ZERO, &stop, &mut jitter).map(|_| ())
            };
            let mut component = Component::start("listener", ended, body).unwrap();
            let soon = std::time::Instant::now() + Duration::from_secs(10);
            // Not stopped but awaited: a stopped listener moves no watermark.
            names.recv_deadline(soon).unwrap();
            assert!(matches!(component.join_by(soon), crate::component::End::Clean));
            self.reader.end_turn();
        }

        /// One pass, beside an intake that answers it.
        fn reap(&mut self) -> Passed {
            let now = self.store.now();
            let Self { reaper, keeper, intake, postings, steady, .. } = self;
            let (done, over) = channel::bounded::<()>(0);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    channel::select! {
                        recv(postings) -> posting => {
                            let Posting { envelopes, reply, .. } = posting.unwrap();
                            let verdicts = intake.accept(now, envelopes).unwrap();
                            reply.put(Answer::Verdicts(verdicts)).wake();
                        }
                        recv(over) -> _done => {}
                    }
                });
                let passed = reaper.pass(&mut **keeper, now, *steady).unwrap();
                drop(done);
                passed
            })
        }

        fn status(&mut self) -> String {
            let process = ProcessId::parse("import").unwrap();
            let view = self.reader.status(&TenantId::parse("acme").unwrap(), &process);
            view.unwrap().unwrap().row.status.as_str().to_string()
        }
    }

    const HELD: Passed = Passed { put_off: 0, expired: 0, held: true };
    const NOTHING: Passed = Passed { put_off: 0, expired: 0, held: false };
    const ONE: Passed = Passed { put_off: 0, expired: 1, held: false };
    const TIMEOUT: Duration = Duration::from_secs(3600);

    #[test]
    fn a_silent_process_expires_once_and_its_next_sign_of_life_revives_it() {
        let mut site = Site::new();
        site.post("process.started");
        site.apply();
        assert_eq!(site.reap(), HELD, "the reaper has just begun");
        site.wait(TIMEOUT - Duration::from_secs(1));
        site.apply();
        assert_eq!(site.reap(), NOTHING);
        site.wait(Duration::from_secs(1));
        assert_eq!(site.reap(), NOTHING, "nothing beyond the watermark");
        site.apply();
        assert_eq!(site.reap(), ONE);
        assert_eq!(site.status(), "EXPIRED", "as soon as it is acknowledged");
        assert_eq!(site.reap(), ONE, "said again before it is applied, it is the same event");
        site.apply();
        assert_eq!(site.reap(), NOTHING);
        site.post("process.heartbeat");
        assert_eq!(site.status(), "RUNNING");
        site.apply();
        assert_eq!(site.status(), "RUNNING");
    }

    #[test]
    fn nobody_is_judged_for_a_heartbeat_interval_after_an_outage_or_a_jump() {
        let mut site = Site::new();
        site.post("process.started");
        site.apply();
        site.reap();
        site.wait(2 * TIMEOUT);
        site.apply();
        site.takes_writes.store(false, Ordering::Relaxed);
        assert_eq!(site.reap(), HELD, "nobody can be heard");
        site.takes_writes.store(true, Ordering::Relaxed);
        site.wait(HEARTBEAT - Duration::from_secs(1));
        assert_eq!(site.reap(), HELD);
        site.jump(Duration::from_secs(6));
        site.wait(Duration::from_secs(1));
        assert_eq!(site.reap(), HELD, "the machine may have slept");
        site.wait(HEARTBEAT);
        assert_eq!(site.reap(), ONE);
    }

    #[test]
    fn who_says_log_rows_is_not_judged_while_these_are_shed() {
        let mut site = Site::new();
        let takes_logs = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&takes_logs);
        site.reaper.takes_logs = Arc::new(move || told.load(Ordering::Relaxed));
        site.post("process.started");
        site.apply();
        site.reap();
        let row = |now: Timestamp| LogRow {
            tenant: TenantId::parse("acme").unwrap(),
            process: ProcessId::parse("import").unwrap(),
            level: Level::Info,
            message: "still here".into(),
            event_type: None,
            component: None,
            details: None,
            stack_trace: None,
            logged_at: now,
            duration_us: None,
            correlation_id: None,
            trace_id: None,
            span_id: None,
        };
        site.store.logs().unwrap().write(&[row(site.store.now())]).unwrap();
        site.wait(2 * TIMEOUT);
        site.apply();
        assert_eq!(site.reap(), Passed { put_off: 1, ..NOTHING });
        // The next row finds room again, in time.
        takes_logs.store(true, Ordering::Relaxed);
        site.store.logs().unwrap().write(&[row(site.store.now())]).unwrap();
        site.wait(HEARTBEAT);
        site.apply();
        assert_eq!(site.reap(), Passed { put_off: 1, ..NOTHING });
        site.wait(TIMEOUT);
        site.apply();
        assert_eq!(site.reap(), ONE, "silence is heard again");
    }

    #[test]
    fn a_process_whose_expiry_cannot_be_told_does_not_keep_the_others_waiting() {
        let mut site = Site::new();
        site.post("process.started");
        site.apply();
        site.reap();
        site.wait(TIMEOUT);
        site.apply();
        let found = site.keeper.overdue(site.store.now(), 1).unwrap().remove(0);
        let until = site.store.now();
        let Judgement::Lost(told) = site.reaper.judgement(&found, until, Why::Deadline) else {
            panic!("it is overdue");
        };
        let other = Envelope {
            event_type: EventType::parse("OrderCreated").unwrap(),
            hash: PayloadHash([9; 32]),
            ..*told
        };
        site.intake.accept(until, vec![other]).unwrap();
        site.apply();
        assert_eq!(site.reap(), Passed { put_off: 1, ..NOTHING });
        assert_eq!(site.keeper.overdue(until, 1).unwrap(), []);
        // The next sign of life has another expiry.
        site.wait(HEARTBEAT);
        site.post("process.heartbeat");
        site.apply();
        site.wait(TIMEOUT);
        site.apply();
        assert_eq!(site.reap(), ONE);
    }

    #[test]
    fn a_clock_that_ran_ahead_and_was_set_back_makes_nobody_lost_who_is_heard() {
        let mut site = Site::new();
        site.post("process.started");
        site.apply();
        site.reap();
        // While the clock is a day ahead, the listener finds the queue empty.
        let day = i64::try_from(Duration::from_secs(86_400).as_micros()).unwrap();
        site.clock.fetch_add(day, Ordering::Relaxed);
        site.apply();
        site.clock.fetch_sub(day, Ordering::Relaxed);
        for _ in 0..10 {
            site.wait(HEARTBEAT);
            site.post("process.heartbeat");
            site.apply();
            let passed = site.reap();
            assert_eq!((passed.expired, site.status().as_str()), (0, "RUNNING"));
        }
        // It is the deadline that decides again, and no time that has not come yet.
        site.wait(TIMEOUT);
        site.apply();
        assert_eq!(site.reap(), ONE);
    }

    #[test]
    fn a_watermark_from_before_the_clock_was_set_back_proves_nothing() {
        let mut site = Site::new();
        site.post("process.started");
        site.apply();
        site.reap();
        // Set ahead and back between two passes, so that the reaper sees no jump, and the listener has not come since.
        site.watermark
            .advance(site.store.now().plus(2 * TIMEOUT), site.store.now().plus(2 * TIMEOUT));
        site.wait(HEARTBEAT);
        assert_eq!(site.reap(), NOTHING);
        assert_eq!(site.status(), "RUNNING");
    }

    #[test]
    fn an_expiry_that_cannot_be_posted_is_held_and_posted_later() {
        let mut site = Site::new();
        site.post("process.started");
        site.apply();
        site.reap();
        site.wait(2 * TIMEOUT);
        site.apply();
        let now = site.store.now();
        let passed = {
            let Site { reaper, keeper, postings, steady, .. } = &mut site;
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let posting = postings.recv().unwrap();
                    posting.reply.put(Answer::Unavailable("full")).wake();
                });
                reaper.pass(&mut **keeper, now, *steady).unwrap()
            })
        };
        assert_eq!(passed, NOTHING);
        assert_eq!(site.reap(), HELD);
        site.wait(HEARTBEAT);
        assert_eq!(site.reap(), ONE);
    }
}
