//! Clauses about errors that nobody understands: nothing is lost by them, nothing ends, and who is not to blame goes on.
//! This module lets the stand-in fail on purpose with numbers that are in no table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel;
use sentinel::component::{Component, End};
use sentinel::domain::event::{Envelope, Verdict};
use sentinel::domain::process::Status;
use sentinel::intake::{self, Posting};
use sentinel::listener::{Jitter, Listener, Unclear, Watermark};
use sentinel::mailbox::{Address, Answer, ChannelMailbox, Letter, ReplyTo};
use sentinel::store::{Condition, DeadLetterFilter, ListenerSession, ProcessFilter};

use super::places::Place;
use super::{POLICY, Site, acme, each, first};
use crate::harness::PATIENCE;
use crate::oracle_standin::Standin;

/// Makes the database fail for rows of `table` that meet `condition`, in a way that is in no table of errors.
fn fails_for(standin: &Standin, table: &str, condition: &str) {
    standin.sql(&format!(
        "CREATE OR REPLACE FUNCTION standin.fails() RETURNS trigger LANGUAGE plpgsql AS $$ \
         BEGIN RAISE EXCEPTION 'on purpose'; END $$; \
         CREATE TRIGGER fails BEFORE INSERT OR UPDATE ON sentinel.{table} \
         FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION standin.fails()"
    ));
}

fn mend(standin: &Standin, table: &str) {
    standin.sql(&format!("DROP TRIGGER fails ON sentinel.{table}"));
}

fn standin(site: &Site) -> Option<Arc<Standin>> {
    match &site.place {
        Place::Service(standin) => Some(Arc::clone(standin)),
        Place::Folder(_) | Place::Server(_) => None,
    }
}

/// A listener as the service runs it, with its own session.
struct Listening {
    listener: Listener,
    session: Box<dyn ListenerSession>,
}

impl Listening {
    fn new(site: &Site) -> Self {
        let listener = Listener {
            policy: POLICY,
            clock: site.clock.as_clock(),
            backlog: Arc::new(|| (0, None)),
            metrics: Arc::default(),
            watermark: Arc::<Watermark>::default(),
            applied: None,
            retry_pause: Duration::from_millis(1),
            unclear: Unclear::default(),
            tracer: None,
        };
        Self { listener, session: site.store.listener().unwrap() }
    }

    /// Some passes, with time in between for what was given back. An error of one would end the service.
    fn pass(&mut self, site: &mut Site, times: usize) {
        let mut jitter = Jitter::new(0);
        for _ in 0..times {
            let passed =
                self.listener.pass(&mut *self.session, Duration::ZERO, &site.stop, &mut jitter);
            passed.expect("no error that nobody understands ends the service");
            site.give_back();
        }
        site.reader.end_turn();
    }
}

fn set_aside(site: &mut Site) -> Vec<(String, String)> {
    let all = DeadLetterFilter::default();
    let found = site.reader.dead_letters(&acme(), &all, &first(99)).unwrap().rows;
    found.into_iter().map(|letter| (letter.stream_key.unwrap_or_default(), letter.detail)).collect()
}

/// What `/ready` says of the sessions of listeners.
fn stuck(site: &Site) -> Vec<Condition> {
    let of_listeners = |line: &Condition| line.name.starts_with("session.listener-") && line.vital;
    site.store.condition().into_iter().filter(of_listeners).collect()
}

#[test]
fn one_message_that_fails_for_no_known_reason_is_set_aside_and_its_neighbours_are_applied() {
    each(|site| {
        let Some(standin) = standin(site) else { return };
        fails_for(&standin, "events", "NEW.type = 'Poison'");
        for (stream, event_type) in
            [("a", "Ordered"), ("b", "Poison"), ("c", "Ordered"), ("b", "Ordered")]
        {
            site.post(stream, event_type, "{}");
        }
        let mut listening = Listening::new(site);
        listening.pass(site, 2);
        assert_eq!(site.numbers("a", 0), Some(vec![1]));
        assert_eq!(site.numbers("c", 0), Some(vec![1]));
        assert_eq!(site.numbers("b", 0), Some(vec![2]), "its number is kept");
        let letters = set_aside(site);
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert!(letters[0].0 == "b" && letters[0].1.contains("ORA-00600"), "{letters:?}");
        assert_eq!(site.backlog(), (0, None));
        assert_eq!(stuck(site), []);
    });
}

#[test]
fn a_message_that_fails_alone_is_kept_until_others_show_that_it_is_to_blame() {
    each(|site| {
        let Some(standin) = standin(site) else { return };
        fails_for(&standin, "events", "NEW.type = 'Poison'");
        site.post("b", "Poison", "{}");
        let mut listening = Listening::new(site);
        listening.pass(site, 2);
        assert_eq!(set_aside(site), [], "it may be the database");
        let told = stuck(site);
        assert_eq!(told.len(), 1, "{:?}", site.store.condition());
        assert!(told[0].detail.contains("ORA-00600"), "{told:?}");
        assert!(site.backlog().0 > 0, "it is in the queue");
        site.post("a", "Ordered", "{}");
        let began = Instant::now();
        while set_aside(site).is_empty() {
            assert!(began.elapsed() < PATIENCE, "{:?}", site.store.condition());
            listening.pass(site, 1);
        }
        assert_eq!(site.numbers("a", 0), Some(vec![1]));
        assert_eq!(stuck(site), [], "it gets on again");
        assert_eq!(site.backlog(), (0, None));
    });
}

#[test]
fn while_everything_fails_nothing_is_set_aside_and_afterwards_all_is_applied_once() {
    const EVENTS: usize = 12;
    each(|site| {
        let Some(standin) = standin(site) else { return };
        for n in 0..EVENTS {
            site.post(&format!("s{}", n % 3), "Ordered", "{}");
        }
        fails_for(&standin, "events", "true");
        let mut listening = Listening::new(site);
        listening.pass(site, 3);
        assert_eq!(set_aside(site), []);
        assert_eq!(stuck(site).len(), 1, "{:?}", site.store.condition());
        mend(&standin, "events");
        let began = Instant::now();
        while site.backlog().0 > 0 {
            assert!(began.elapsed() < PATIENCE, "{:?}", site.store.condition());
            listening.pass(site, 1);
        }
        for stream in ["s0", "s1", "s2"] {
            assert_eq!(site.numbers(stream, 0), Some(vec![1, 2, 3, 4]), "{stream}");
        }
        assert_eq!(set_aside(site), []);
        assert_eq!(stuck(site), []);
    });
}

/// People with rights of their own write to the schema, too.
#[test]
fn a_process_whose_state_cannot_be_read_troubles_nobody_else() {
    each(|site| {
        let Some(standin) = standin(site) else { return };
        for process in ["a", "b"] {
            site.post(process, "process.started", "{}");
            site.post(process, "process.progress", r#"{"current_step":"LOADING"}"#);
        }
        site.apply(10);
        standin.sql(
            "UPDATE sentinel.process_live_status SET state_digest = 'x' WHERE process_id = 'b'",
        );
        for process in ["a", "b"] {
            site.post(process, "process.progress", r#"{"current_step":"SAVING"}"#);
        }
        let mut listening = Listening::new(site);
        listening.pass(site, 1);
        let step = |site: &mut Site, process: &str| {
            let view = site.status(process).unwrap();
            (view.row.status, view.row.current_step)
        };
        assert_eq!(step(site, "a"), (Status::Running, Some("SAVING".to_owned())));
        assert_eq!(step(site, "b"), (Status::Running, Some("LOADING".to_owned())), "its columns");
        let all = site.reader.processes(&acme(), &ProcessFilter::default(), &first(9)).unwrap();
        assert_eq!(all.rows.len(), 2);
        let letters = set_aside(site);
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert!(letters[0].0 == "b" && letters[0].1.contains("state_digest of b"), "{letters:?}");
        assert_eq!(stuck(site), []);

        // Its silence cannot be judged, that of others can.
        let mut keeper = site.store.keeper().unwrap();
        site.clock.forward(Duration::from_secs(1_000_000));
        let overdue = keeper.overdue(site.now(), 9).unwrap();
        let names: Vec<&str> = overdue.iter().map(|one| one.process.as_str()).collect();
        assert_eq!(names, ["a"]);

        standin.sql(
            "UPDATE sentinel.process_live_status SET state_digest = NULL WHERE process_id = 'b'",
        );
        site.post("b", "process.progress", r#"{"current_step":"SAVING"}"#);
        listening.pass(site, 1);
        assert_eq!(step(site, "b").1, Some("SAVING".to_owned()), "it goes on");
    });
}

#[test]
fn a_posting_that_fails_for_no_known_reason_is_told_so_and_the_others_get_through() {
    each(|site| {
        let Some(standin) = standin(site) else { return };
        fails_for(&standin, "stream_counter", "NEW.stream_key = 'poison'");
        let (postings, posted) = channel::bounded::<Posting>(64);
        let (ended, names) = channel::unbounded();
        let (mailbox, letters) = ChannelMailbox::new();
        let post = |envelope: Envelope, slot: u32| {
            let address = Address { slot, generation: 0 };
            let mailbox = Arc::clone(&mailbox) as _;
            let reply = ReplyTo { mailbox, address, context: Box::new(()) };
            let envelopes = vec![envelope];
            postings.send(Posting { envelopes, reply, room: None, traced: None }).unwrap();
        };
        // All of them wait before intake begins, so the first batch holds all.
        let envelopes: Vec<Envelope> =
            (0..5).map(|n| site.envelope(["a", "poison"][n % 2], "Ordered", "{}")).collect();
        for (slot, envelope) in (0..).zip(&envelopes) {
            post(envelope.clone(), slot);
        }
        let session = site.store.intake().unwrap();
        let clock = site.clock.as_clock();
        let mut component: Component =
            intake::start(session, posted, clock, Arc::default(), ended).unwrap();
        let answered = |count: usize| -> Vec<(u32, bool)> {
            let mut all: Vec<(u32, bool)> = (0..count)
                .map(|_| {
                    let letter: Letter = letters.recv_timeout(PATIENCE).unwrap();
                    let taken = match letter.answer {
                        Answer::Verdicts(verdicts) => {
                            assert!(matches!(verdicts[..], [Verdict::Accepted(_)]), "{verdicts:?}");
                            true
                        }
                        Answer::Unavailable(_) => false,
                        other => unreachable!("nobody has this: {other:?}"),
                    };
                    (letter.address.slot, taken)
                })
                .collect();
            all.sort_unstable();
            all
        };
        let first = answered(5);
        // Whoever was sent away sends again, as clients do.
        for (slot, _) in first.iter().filter(|(_, taken)| !taken) {
            post(envelopes[usize::try_from(*slot).unwrap()].clone(), *slot);
        }
        let again = answered(first.iter().filter(|(_, taken)| !taken).count());
        for slot in 0..5 {
            let taken = first.iter().chain(&again).any(|answer| *answer == (slot, true));
            assert_eq!(taken, slot % 2 == 0, "{slot}: {first:?} {again:?}");
        }
        assert!(names.is_empty(), "intake goes on");
        component.stop();
        let end = component.join_by(Instant::now() + PATIENCE);
        assert!(matches!(end, End::Clean), "{end:?}");
        site.apply(10);
        assert_eq!(site.numbers("a", 0), Some(vec![1, 2, 3]));
        assert_eq!(site.numbers("poison", 0), None);
    });
}
