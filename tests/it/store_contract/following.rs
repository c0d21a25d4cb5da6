//! Clauses about followers: those of one instance hear what any instance has committed. This module opens a second
//! instance on the same store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sentinel::component::End;
use sentinel::domain::ids::TenantId;
use sentinel::domain::log_row::LogRow;
use sentinel::live::{Hub, Subject, Subscription};
use sentinel::mailbox::{Address, Letter, Mailbox};
use sentinel::store::LogFilter;
use sentinel::tail::{self, Tail};

use super::places::Place;
use super::{SECOND, Site, acme, decide, each, key, log_rows, process, tenant};
use crate::harness::{PATIENCE, eventually};

/// One turn of the tail, and a little.
const TURN: Duration = Duration::from_millis(300);

fn line(site: &Site, of: &TenantId, name: &str) -> LogRow {
    LogRow { tenant: of.clone(), ..log_rows::row(site, name, "hello") }
}

/// What another instance does: it accepts and applies everything there is, as of `at_once` or a while ago.
fn applied_elsewhere(site: &mut Site, stream: &str, ago: Duration) {
    let other = (site.backend.open)(&site.place, &site.clock);
    let envelope = site.envelope(stream, "Ordered", "{}");
    let now = other.now();
    other.intake().unwrap().accept(now, vec![envelope]).unwrap();
    let mut listener = other.listener().unwrap();
    loop {
        let claim = listener.claim(100, Duration::ZERO, &site.stop).unwrap();
        if claim.messages.is_empty() {
            return;
        }
        let change = decide(&mut *listener, &claim, other.now());
        listener.settle(claim, change, other.now().minus(ago)).unwrap();
    }
}

/// Who waits: for the events of two streams, the lines of two processes, and the same names of another tenant.
struct Waiting {
    tail: Tail,
    events: [Subscription; 3],
    lines: [Subscription; 3],
}

impl Waiting {
    fn new() -> Self {
        let hub = Arc::new(Hub::default());
        let names = [(acme(), "s"), (acme(), "t"), (tenant("other"), "s")];
        let events =
            names.clone().map(|(tenant, name)| hub.subscribe(Subject::Events(tenant, key(name))));
        let lines = names.map(|(tenant, name)| hub.subscribe(Subject::Logs(tenant, process(name))));
        let tail = Tail { hub, metrics: Arc::default() };
        Self { tail, events, lines }
    }

    /// Who was told something since the last time.
    fn told(&self) -> ([bool; 3], [bool; 3]) {
        let told = |all: &[Subscription; 3]| [0, 1, 2].map(|n: usize| all[n].take().is_some());
        (told(&self.events), told(&self.lines))
    }
}

#[test]
fn followers_hear_what_another_instance_commits_once_and_only_their_own() {
    each(|site| {
        let Some(mut session) = site.store.tail().unwrap() else {
            // The only instance there can be announces by itself.
            assert!(!site.differs().is_shared);
            return;
        };
        let waiting = Waiting::new();
        let nobody = ([false; 3], [false; 3]);
        let mut look = |site: &Site| {
            site.clock.forward(TURN);
            assert!(waiting.tail.pass(&mut *session).unwrap());
            waiting.told()
        };
        assert_eq!(look(site), ([true; 3], [true; 3]), "what came before the first look");
        assert_eq!(look(site), nobody);
        applied_elsewhere(site, "s", Duration::ZERO);
        assert_eq!(look(site), ([true, false, false], [false; 3]));
        let mut reader = site.store.reader().unwrap();
        assert_eq!(reader.stream_events(&acme(), &key("s"), 0, 9).unwrap().unwrap().len(), 1);
        for _ in 0..8 {
            assert_eq!(look(site), nobody, "seen again in the overlap, and not told again");
        }
        // A commit that took longer than two looks lie apart is told all the same.
        applied_elsewhere(site, "t", SECOND);
        assert_eq!(look(site), ([false, true, false], [false; 3]));
        // One that took much longer is told by the next far look.
        applied_elsewhere(site, "t", SECOND * 9);
        let mut found = 0;
        for _ in 0..20 {
            let (events, _) = look(site);
            assert!(!events[0] && !events[2]);
            found += usize::from(events[1]);
        }
        assert_eq!(found, 1, "within six seconds, and once");
    });
}

#[test]
fn followers_of_lines_are_told_when_the_lines_are_shown() {
    each(|site| {
        let Some(mut session) = site.store.tail().unwrap() else { return };
        let waiting = Waiting::new();
        let mut look = |site: &Site| {
            site.clock.forward(TURN);
            assert!(waiting.tail.pass(&mut *session).unwrap());
            waiting.told().1
        };
        look(site);
        let other = (site.backend.open)(&site.place, &site.clock);
        let rows = [line(site, &acme(), "s"), line(site, &tenant("other"), "s")];
        other.logs().unwrap().write(&rows).unwrap();
        let mut reader = site.store.reader().unwrap();
        let mut shown = || {
            let all = LogFilter::default();
            let found = reader.new_logs(&acme(), &process("s"), &all, 9).unwrap();
            found.rows.len()
        };
        // Told by the very look from which on they are shown.
        let mut looks = 0;
        loop {
            let (told, visible) = (look(site), shown() > 0);
            assert_eq!(told, [visible, false, visible]);
            if visible {
                break;
            }
            looks += 1;
            assert!(looks < 20, "lines are shown after {:?}", site.differs().lines_settle_after);
        }
        assert!(looks > 0, "they are not settled at once");
    });
}

#[test]
fn one_statement_serves_all_followers_and_none_is_sent_for_nobody() {
    each(|site| {
        let Some(mut session) = site.store.tail().unwrap() else { return };
        let Place::Service(standin) = &site.place else { return };
        let hub = Arc::new(Hub::default());
        let tail = Tail { hub: Arc::clone(&hub), metrics: Arc::default() };
        let sent = || standin.trips("process-sentinel").values().sum::<u64>();
        assert!(!tail.pass(&mut *session).unwrap());
        let mut all = Vec::new();
        let mut trips = Vec::new();
        for followers in [1, 500] {
            all.extend(
                (all.len()..followers)
                    .map(|n| hub.subscribe(Subject::Events(acme(), key(&format!("s{n}"))))),
            );
            // The first look sends nothing, the second opens the session.
            tail.pass(&mut *session).unwrap();
            tail.pass(&mut *session).unwrap();
            let before = sent();
            for _ in 0..10 {
                assert!(tail.pass(&mut *session).unwrap());
            }
            trips.push(sent() - before);
        }
        assert_eq!(trips[0], trips[1], "a look costs the same for one and for 500");
        assert!((1..=20).contains(&trips[0]), "{trips:?} trips for ten looks");
        drop(all);
        let before = sent();
        for _ in 0..10 {
            assert!(!tail.pass(&mut *session).unwrap());
        }
        assert_eq!(sent(), before, "nobody follows");
    });
}

/// Notes who is rung.
#[derive(Default)]
struct Bells(Mutex<Vec<u32>>);

impl Mailbox for Bells {
    fn put(&self, _: Letter) {
        unreachable!("no letters here")
    }

    fn ring(&self, address: Address) {
        self.0.lock().push(address.slot);
    }

    fn wake(&self) {}
}

#[test]
fn who_rests_is_rung_by_the_tail_also_after_its_session_was_killed() {
    each(|site| {
        let Some(session) = site.store.tail().unwrap() else { return };
        let Place::Service(standin) = &site.place else { return };
        let standin = Arc::clone(standin);
        let hub = Arc::new(Hub::default());
        let (ended, _names) = crossbeam::channel::unbounded();
        let tail = Tail { hub: Arc::clone(&hub), metrics: Arc::default() };
        let mut component = tail::start(session, tail, ended).unwrap();
        let bells = Arc::new(Bells::default());
        let subscription = hub.subscribe(Subject::Events(acme(), key("s")));
        for (applied, kills) in (0..).zip([false, true, false]) {
            if kills {
                // Its first look needs no session, so there may be none yet.
                eventually("a session is killed", || (standin.kill_sessions() > 0).then_some(()));
            }
            // Whatever the tail had to say so far is heard, as a stream does before it rests.
            let rest = || {
                subscription.take();
                let mailbox = Arc::clone(&bells) as Arc<dyn Mailbox>;
                subscription.rest(mailbox, Address { slot: 7, generation: 0 })
            };
            eventually("it rests", || rest().then_some(()));
            applied_elsewhere(site, "s", Duration::ZERO);
            let mut reader = site.store.reader().unwrap();
            eventually("it is rung, and there is something new", || {
                site.clock.forward(SECOND / 10);
                std::thread::yield_now();
                if !rest() {
                    return None;
                }
                let seen = reader.stream_events(&acme(), &key("s"), applied, 9).unwrap();
                let rung = !bells.0.lock().is_empty();
                (rung && seen.is_some_and(|seen| !seen.is_empty())).then_some(())
            });
            bells.0.lock().clear();
        }
        component.stop();
        let end = component.join_by(Instant::now() + PATIENCE);
        assert!(matches!(end, End::Clean), "{end:?}");
    });
}
