//! Tests of the listener over a queue in memory whose settles fail as a test says.

use std::collections::VecDeque;
use std::convert::Infallible;

use crossbeam::channel::{self, Receiver};
use parking_lot::Mutex;

use super::*;
use crate::component::End;
use crate::domain::event::Envelope;

/// A queue in memory, whose settles fail as a test says.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Message>,
    failures: VecDeque<StoreError>,
    /// A batch that holds it is refused, unless it is set aside.
    poison: Option<i64>,
    /// Batches that hold one of these fail for no known reason, unless it is set aside.
    unclear: Vec<i64>,
    /// How often everything was given back.
    given_back: usize,
    /// Positions of each settled claim, and of its dead letters.
    settled: Vec<(Vec<i64>, Vec<i64>)>,
}

#[derive(Clone, Default)]
struct Session(Arc<Mutex<Queue>>);

impl ListenerSession for Session {
    fn claim(&mut self, max: usize, _wait: Duration, _stop: &Stop) -> Result<Claim> {
        let queue = self.0.lock();
        let messages: Vec<Message> = queue.waiting.iter().take(max).cloned().collect();
        let drained = messages.len() < max;
        Ok(Claim { messages, drained })
    }

    fn load(&mut self, processes: &[(TenantId, ProcessId)]) -> Result<Vec<Option<State>>> {
        Ok(vec![None; processes.len()])
    }

    fn settle(&mut self, claim: Claim, change: Change, _now: Timestamp) -> Result<()> {
        let mut queue = self.0.lock();
        if let Some(error) = queue.failures.pop_front() {
            return Err(error);
        }
        let applied: Vec<i64> = change.events.iter().map(|event| event.position).collect();
        if queue.poison.is_some_and(|poison| applied.contains(&poison)) {
            return Err(StoreError::Refused { call: "settle", source: "poison".into() });
        }
        if applied.iter().any(|position| queue.unclear.contains(position)) {
            return Err(StoreError::Unclear { call: "settle", source: "ORA-00600".into() });
        }
        if !queue.unclear.is_empty() {
            // What fails waits, and others go by.
            let settled: Vec<i64> = claim.messages.iter().map(Message::position).collect();
            queue.waiting.retain(|message| !settled.contains(&message.position()));
        }
        let in_order = if queue.unclear.is_empty() { &claim.messages[..] } else { &[] };
        for message in in_order {
            let first = queue.waiting.pop_front().map(|first| first.position());
            assert_eq!(first, Some(message.position()), "in the order of acceptance");
        }
        let letters = change.dead_letters.iter().map(|letter| letter.id).collect();
        queue.settled.push((applied, letters));
        Ok(())
    }

    fn give_back(&mut self) {
        self.0.lock().given_back += 1;
    }
}

fn event(position: i64, event_type: &str) -> Message {
    let received_at = Timestamp::from_micros(1_000_000 * position);
    Message::Event(Arc::new(Accepted {
        position,
        stream_seq: position.unsigned_abs(),
        received_at,
        ordered_at: received_at,
        clock_skew: false,
        envelope: Envelope::sample(&format!("e{position}"), "a", event_type),
    }))
}

fn listener() -> Listener {
    Listener {
        policy: Policy {
            timeout: Duration::from_secs(3600),
            heartbeat_interval: Duration::from_secs(30),
        },
        clock: Arc::new(|| Timestamp::from_micros(60_000_000)),
        backlog: Arc::new(|| (0, None)),
        metrics: Arc::new(Metrics::new()),
        watermark: Arc::new(Watermark::default()),
        applied: None,
        // Whoever tries again in a test wants the next attempt, not the pause before it.
        retry_pause: Duration::ZERO,
        unclear: Unclear::default(),
        tracer: None,
    }
}

/// A stop signal, given when the component that comes with it is stopped.
fn stop() -> (Component, Stop) {
    let (ended, _names) = channel::unbounded();
    let (sender, receiver) = channel::bounded(1);
    let component = Component::start("holder", ended, move |stop: Stop| {
        sender.send(stop.clone())?;
        let channel: &Receiver<Infallible> = stop.channel();
        let _closed = channel.recv();
        Ok(())
    });
    (component.unwrap(), receiver.recv().unwrap())
}

fn busy() -> StoreError {
    StoreError::Busy { call: "settle", source: "locked".into() }
}

#[test]
fn a_store_that_is_busy_gets_the_same_batch_again() {
    let (_holder, stop) = stop();
    let session = Session::default();
    session.0.lock().waiting.extend([event(1, "Ordered"), event(2, "process.started")]);
    session.0.lock().failures.extend([busy(), busy()]);
    let mut listener = listener();
    let (sender, told) = channel::unbounded();
    listener.applied = Some(Box::new(move |events, _at| {
        sender.send(events.len()).unwrap();
    }));
    let mut own = session.clone();
    let passed = listener.pass(&mut own, Duration::ZERO, &stop, &mut Jitter::new(0)).unwrap();
    assert_eq!(passed, Passed { settled: 2, drained: true });
    assert_eq!(session.0.lock().settled, [(vec![1, 2], vec![])]);
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [2], "told once, after the commit");
    assert_eq!(listener.watermark.get(), Some(Timestamp::from_micros(60_000_000)));
}

#[test]
fn a_message_that_fails_for_no_known_reason_is_set_aside_only_where_others_go_through() {
    let (_holder, stop) = stop();
    let session = Session::default();
    let mut own = session.clone();
    let mut listener = listener();
    let mut pass = |listener: &mut Listener| {
        listener.pass(&mut own, Duration::ZERO, &stop, &mut Jitter::new(0)).unwrap();
    };
    // The last of a batch, whose others go through.
    session.0.lock().waiting.extend((1..=3).map(|position| event(position, "Ordered")));
    session.0.lock().unclear = vec![3];
    pass(&mut listener);
    let wanted: [(Vec<i64>, Vec<i64>); 3] =
        [(vec![1], vec![]), (vec![2], vec![]), (vec![], vec![3])];
    assert_eq!(session.0.lock().settled, wanted);
    // Nothing goes through, again and again: all of it stays.
    session.0.lock().waiting.extend([4, 5].map(|position| event(position, "Ordered")));
    session.0.lock().unclear = vec![4, 5];
    for times in 1..=3 {
        pass(&mut listener);
        assert_eq!(session.0.lock().settled.len(), 3);
        assert_eq!(session.0.lock().given_back, times);
    }
    // One of the two was not to blame.
    session.0.lock().unclear = vec![4];
    pass(&mut listener);
    assert_eq!(session.0.lock().settled[3..], [(vec![5], vec![]), (vec![], vec![4])]);
    assert!(session.0.lock().waiting.is_empty());
}

#[test]
fn one_poisoned_message_is_set_aside_and_the_others_are_applied() {
    let (_holder, stop) = stop();
    let session = Session::default();
    session.0.lock().waiting.extend((1..=4).map(|position| event(position, "Ordered")));
    session.0.lock().poison = Some(3);
    let mut own = session.clone();
    let mut listener = listener();
    listener.pass(&mut own, Duration::ZERO, &stop, &mut Jitter::new(0)).unwrap();
    let wanted: [(Vec<i64>, Vec<i64>); 4] =
        [(vec![1], vec![]), (vec![2], vec![]), (vec![], vec![3]), (vec![4], vec![])];
    assert_eq!(session.0.lock().settled, wanted);
}

#[test]
fn what_nobody_may_send_and_what_nobody_can_read_become_dead_letters() {
    let (_holder, stop) = stop();
    let session = Session::default();
    let garbage = Message::Undecodable { position: 2, bytes: vec![0xff], problem: "torn".into() };
    session.0.lock().waiting.extend([event(1, "process.bogus"), garbage, event(3, "Ordered")]);
    let mut own = session.clone();
    listener().pass(&mut own, Duration::ZERO, &stop, &mut Jitter::new(0)).unwrap();
    assert_eq!(session.0.lock().settled, [(vec![3], vec![1, 2])]);
}

#[test]
fn the_watermark_stands_still_while_a_backlog_is_left() {
    let (_holder, stop) = stop();
    let session = Session::default();
    let full = i64::try_from(BATCH_MAX).unwrap();
    session.0.lock().waiting.extend((1..=full).map(|position| event(position, "Ordered")));
    let mut listener = listener();
    let mut own = session.clone();
    let mut pass = |listener: &mut Listener| {
        listener.pass(&mut own, Duration::ZERO, &stop, &mut Jitter::new(0)).unwrap()
    };
    assert!(!pass(&mut listener).drained);
    assert_eq!(listener.watermark.get(), None);
    assert!(pass(&mut listener).drained);
    assert!(listener.watermark.get().is_some());
    let mark = Timestamp::from_micros(60_000_000);
    listener.watermark.advance(Timestamp::from_micros(5), mark);
    assert_eq!(listener.watermark.get(), Some(mark));
}

#[test]
fn a_watermark_of_a_clock_that_was_set_back_gives_way() {
    let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
    let watermark = Watermark::default();
    watermark.advance(at(500), at(500));
    watermark.advance(at(600), at(40));
    assert_eq!(watermark.get(), Some(at(500)), "the claim began before the clock was set back");
    watermark.advance(at(50), at(51));
    assert_eq!(watermark.get(), Some(at(50)));
    watermark.advance(at(49), at(52));
    assert_eq!(watermark.get(), Some(at(50)), "of two listeners the later one counts");
}

#[test]
fn a_listener_stops_in_the_middle_of_an_outage_and_fails_on_what_no_retry_can_mend() {
    let soon = Duration::from_secs(10);
    // So long that only a stop ends it.
    let retry_pause = Duration::from_secs(3600);
    let run = |failures: Vec<StoreError>| {
        let session = Session::default();
        session.0.lock().waiting.push_back(event(1, "Ordered"));
        session.0.lock().failures.extend(failures);
        let (ended, names) = channel::unbounded();
        let listener = Listener { retry_pause, ..listener() };
        (start(1, Box::new(session.clone()), listener, ended).unwrap(), names, session)
    };
    let (mut component, _names, session) = run(vec![busy()]);
    component.stop();
    assert!(matches!(component.join_by(Instant::now() + soon), End::Clean));
    assert_eq!(session.0.lock().waiting.len(), 1, "nothing is lost");

    let io = StoreError::Io { call: "settle", source: "disk".into() };
    let (mut component, names, _session) = run(vec![io]);
    assert_eq!(names.recv_timeout(soon).unwrap(), "listener-1");
    assert!(matches!(component.join_by(Instant::now() + soon), End::Failed(_)));
}

#[test]
fn the_more_comes_the_longer_the_next_batch_gathers() {
    assert_eq!(linger(0), LINGER_MIN);
    assert_eq!(linger(50), LINGER_MIN + 50 * LINGER_PER_MESSAGE);
    assert_eq!([linger(1000), linger(BATCH_MAX), linger(usize::MAX)], [LINGER_MAX; 3]);
}

#[test]
fn pauses_are_spread_between_half_and_whole() {
    let mut jitter = Jitter::new(3);
    let pause = Duration::from_secs(1);
    let spread: Vec<Duration> = (0..100).map(|_| jitter.spread(pause)).collect();
    assert!(spread.iter().all(|p| *p >= pause / 2 && *p <= pause));
    assert!(spread.iter().any(|p| *p < pause * 6 / 10));
    assert!(spread.iter().any(|p| *p > pause * 9 / 10));
}
