//! Who is judged, and who is not. This module moves a whole store's time by hand and looks at what the reaper does.

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

    /// One with a process that has started, where everybody could be heard from now on.
    fn started() -> Self {
        let mut site = Self::new();
        site.post("process.started");
        site.apply();
        site.reap();
        site
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
        let soon = Instant::now() + Duration::from_secs(10);
        // Not stopped but awaited: a stopped listener moves no watermark.
        names.recv_deadline(soon).unwrap();
        assert!(matches!(component.join_by(soon), crate::component::End::Clean));
        self.reader.end_turn();
    }

    /// One pass, beside an intake that answers it.
    fn reap(&mut self) -> Passed {
        let now = self.store.now();
        self.reap_beside(|intake, envelopes| {
            Answer::Verdicts(intake.accept(now, envelopes).unwrap())
        })
    }

    /// One pass, whose postings are answered by `answer`.
    fn reap_beside(
        &mut self,
        answer: impl Fn(&mut dyn IntakeSession, Vec<Envelope>) -> Answer + Send,
    ) -> Passed {
        let now = self.store.now();
        let Self { reaper, keeper, intake, postings, steady, .. } = self;
        let (done, over) = channel::bounded::<()>(0);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                loop {
                    channel::select! {
                        recv(postings) -> posting => {
                            let Posting { envelopes, reply, .. } = posting.unwrap();
                            reply.put(answer(&mut **intake, envelopes)).wake();
                        }
                        recv(over) -> _done => break,
                    }
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
    let mut site = Site::started();
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
    let mut site = Site::started();
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
    let mut site = Site::started();
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
    let mut site = Site::started();
    // Set ahead and back between two passes, so that the reaper sees no jump, and the listener has not come since.
    site.watermark.advance(site.store.now().plus(2 * TIMEOUT), site.store.now().plus(2 * TIMEOUT));
    site.wait(HEARTBEAT);
    assert_eq!(site.reap(), NOTHING);
    assert_eq!(site.status(), "RUNNING");
}

#[test]
fn an_expiry_that_cannot_be_posted_is_held_and_posted_later() {
    let mut site = Site::started();
    site.wait(2 * TIMEOUT);
    site.apply();
    let passed = site.reap_beside(|_, _| Answer::Unavailable("full"));
    assert_eq!(passed, NOTHING);
    assert_eq!(site.reap(), HELD);
    site.wait(HEARTBEAT);
    assert_eq!(site.reap(), ONE);
}

#[test]
fn a_tenant_that_is_held_back_keeps_no_other_from_being_judged() {
    let mut site = Site::new();
    site.post("process.started");
    let other = TenantId::parse("other").unwrap();
    let started = Envelope::sample("o1", "import", "process.started");
    let now = site.store.now();
    site.intake.accept(now, vec![Envelope { tenant: other, ..started }]).unwrap();
    site.apply();
    site.reap();
    site.wait(2 * TIMEOUT);
    site.apply();
    let now = site.store.now();
    let passed = site.reap_beside(|intake, envelopes| match envelopes[0].tenant.as_str() {
        "acme" => Answer::HeldBack("its share"),
        _ => Answer::Verdicts(intake.accept(now, envelopes).unwrap()),
    });
    assert_eq!(passed, Passed { put_off: 1, expired: 1, held: false });
    // It had the time to be heard, and its room, and is silent.
    site.wait(HEARTBEAT);
    site.apply();
    assert_eq!(site.reap(), ONE);
}
