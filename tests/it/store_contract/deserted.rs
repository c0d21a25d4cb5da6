//! Clauses about processes whose session of the database is gone: lost within seconds, never before their last word is
//! applied, told as one event, and revived by whoever goes on. This module runs the reaper on stores that know sessions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel;
use sentinel::component::{Component, End};
use sentinel::domain::process::Status;
use sentinel::domain::time::Timestamp;
use sentinel::intake::{self, Posting};
use sentinel::listener::Watermark;
use sentinel::reaper::{Passed, Reaper};
use sentinel::store::{KeeperSession, Store};

use super::places::Place;
use super::{POLICY, SECOND, Site, acme, each, process};
use crate::harness::PATIENCE;
use crate::oracle_standin::Standin;

/// A reaper of one instance, with the intake that it posts to.
struct Reaping {
    reaper: Reaper,
    keeper: Box<dyn KeeperSession>,
    watermark: Arc<Watermark>,
    intake: Component,
    begun: Timestamp,
    _store: Box<dyn Store>,
}

impl Reaping {
    /// One that has heard everybody for a while, so that it may judge.
    fn start(site: &Site) -> Self {
        let store = (site.backend.open)(&site.place, &site.clock);
        let (postings, posted) = channel::bounded::<Posting>(8);
        let (ended, _) = channel::unbounded();
        let clock = site.clock.as_clock();
        let session = store.intake().unwrap();
        let intake = intake::start(session, posted, clock, Arc::default(), ended).unwrap();
        let watermark = Arc::<Watermark>::default();
        let name = "test".to_owned();
        let open = Arc::new(|| true);
        let reaper = Reaper::new(POLICY, name, Arc::clone(&watermark), postings, open);
        let (keeper, begun) = (store.keeper().unwrap(), site.now());
        let mut reaping = Self { reaper, keeper, watermark, intake, begun, _store: store };
        reaping.watermark.advance(site.now(), site.now());
        assert!(reaping.pass(site, Duration::ZERO).held, "everybody gets the time to be heard");
        reaping.pass(site, POLICY.heartbeat_interval);
        reaping
    }

    /// One pass after `pause`.
    fn pass(&mut self, site: &Site, pause: Duration) -> Passed {
        site.clock.forward(pause);
        self.pass_at(site.now())
    }

    /// The same, after everything there is was applied.
    fn pass_applied(&mut self, site: &mut Site, pause: Duration) -> Passed {
        site.clock.forward(pause);
        let now = site.now();
        site.apply(100);
        self.watermark.advance(now, now);
        self.pass_at(now)
    }

    /// Both clocks run together: nothing jumps.
    fn pass_at(&mut self, now: Timestamp) -> Passed {
        self.reaper.pass(&mut *self.keeper, now, now.since(self.begun)).unwrap()
    }

    fn stop(mut self) {
        self.intake.stop();
        let end = self.intake.join_by(Instant::now() + PATIENCE);
        assert!(matches!(end, End::Clean), "{end:?}");
    }
}

/// The stand-in of a place, which is where sessions can be gone.
fn standin(site: &Site) -> Option<Arc<Standin>> {
    match &site.place {
        Place::Service(standin) => Some(Arc::clone(standin)),
        Place::Server(_) => None,
        Place::Folder(_) => {
            // It knows of no sessions, and says so.
            let mut keeper = site.store.keeper().unwrap();
            assert_eq!(keeper.deserted(site.now(), 9).unwrap(), []);
            None
        }
    }
}

/// What the package writes at a start: which session it was.
fn started_by(standin: &Standin, name: &str, session: &str) {
    let written = standin.sql(&format!(
        "UPDATE sentinel.process_live_status SET session_id = '{session}' \
         WHERE process_id = '{name}' RETURNING process_id"
    ));
    assert_eq!(written, name);
}

fn status(site: &mut Site, name: &str) -> Status {
    site.reader.status(&acme(), &process(name)).unwrap().expect("it is known").row.status
}

#[test]
fn a_process_whose_session_is_gone_is_lost_within_seconds_and_others_are_not() {
    each(|site| {
        let Some(standin) = standin(site) else { return };
        for name in ["dead", "alive", "without", "spoke", "said"] {
            site.post(name, "process.started", "{}");
        }
        let mut reaping = Reaping::start(site);
        reaping.pass_applied(site, SECOND);
        for name in ["dead", "spoke", "said"] {
            started_by(&standin, name, "GONE");
        }
        started_by(&standin, "alive", "LIVES");
        standin.sql("INSERT INTO standin.living_session VALUES ('LIVES')");
        // Its last word is in the queue when its session is found gone.
        let began = site.now();
        site.post("said", "process.completed", "{}");
        for _ in 0..20 {
            let passed = reaping.pass(site, SECOND);
            assert_eq!(passed.expired, 0, "the watermark stands still, so nobody is judged");
        }
        site.post("spoke", "process.progress", r#"{"progress_percent":40}"#);
        let mut expired = 0;
        while expired == 0 {
            assert!(site.now().since(began) < SECOND * 40, "within seconds, not by the deadline");
            expired += reaping.pass_applied(site, SECOND).expired;
        }
        assert_eq!(expired, 1);
        site.apply(10);
        assert_eq!(status(site, "dead"), Status::Expired);
        let reason = site.status("dead").unwrap().row.reason.unwrap();
        assert!(reason.starts_with("the database session that started it is gone; "), "{reason}");
        assert_eq!(status(site, "said"), Status::Completed, "its last word counts");
        for name in ["alive", "without"] {
            assert_eq!(status(site, name), Status::Running, "{name}");
        }
        // The one that spoke last is silent for long enough a little later.
        for _ in 0..15 {
            expired += reaping.pass_applied(site, SECOND).expired;
        }
        assert_eq!(expired, 2);
        site.apply(10);
        assert_eq!(status(site, "spoke"), Status::Expired);
        reaping.stop();
    });
}

#[test]
fn two_reapers_write_one_event_and_who_goes_on_revives_and_has_the_deadline_again() {
    each(|site| {
        let Some(standin) = standin(site) else { return };
        site.post("p", "process.started", "{}");
        let (mut one, mut two) = (Reaping::start(site), Reaping::start(site));
        one.pass(site, POLICY.heartbeat_interval);
        one.pass_applied(site, SECOND);
        started_by(&standin, "p", "GONE");
        let mut expired = (0, 0);
        for _ in 0..20 {
            // Both look before either of their events is applied.
            site.clock.forward(SECOND);
            let now = site.now();
            site.apply(10);
            for (reaping, expired) in [(&mut one, &mut expired.0), (&mut two, &mut expired.1)] {
                reaping.watermark.advance(now, now);
                *expired += reaping.pass(site, Duration::ZERO).expired;
            }
        }
        assert!(expired.0 + expired.1 >= 1, "{expired:?}");
        assert_eq!(site.numbers("p", 0), Some(vec![1, 2]), "one start and one expiry");
        assert_eq!(status(site, "p"), Status::Expired);
        // Another session goes on with it.
        site.post("p", "process.progress", r#"{"progress_percent":50}"#);
        site.apply(10);
        assert_eq!(status(site, "p"), Status::Running);
        for _ in 0..30 {
            assert_eq!(one.pass_applied(site, SECOND).expired, 0, "the old session is forgotten");
        }
        assert_eq!(status(site, "p"), Status::Running);
        // Long silence is judged as ever.
        let passed = one.pass_applied(site, POLICY.timeout);
        assert!(passed.held || passed.expired == 1, "{passed:?}");
        let passed = one.pass_applied(site, POLICY.heartbeat_interval);
        site.apply(10);
        assert_eq!(status(site, "p"), Status::Expired, "{passed:?}");
        one.stop();
        two.stop();
    });
}

#[test]
fn without_the_right_to_look_for_sessions_the_deadline_goes_on_to_work() {
    each(|site| {
        let Some(standin) = standin(site) else { return };
        site.post("p", "process.started", "{}");
        let mut reaping = Reaping::start(site);
        reaping.pass_applied(site, SECOND);
        started_by(&standin, "p", "GONE");
        let refusal = standin.inject("on=OCIStmtExecute text=dead_sessions do=ora:6550");
        for _ in 0..30 {
            assert_eq!(reaping.pass_applied(site, SECOND).expired, 0);
        }
        assert_eq!(standin.hits(&refusal), 1, "asked once, not each second");
        assert_eq!(status(site, "p"), Status::Running);
        // The clock is moved by hand, and not in a jump.
        let mut expired = 0;
        for _ in 0..130 {
            expired += reaping.pass_applied(site, POLICY.heartbeat_interval).expired;
        }
        assert_eq!(expired, 1, "by its deadline");
        standin.mend(&refusal);
        reaping.stop();
    });
}
