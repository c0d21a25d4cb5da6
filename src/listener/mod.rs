//! Applies what was accepted: claim, load, decide in pure code, settle. This module is the `listener-N` thread.
//!
//! A rollback is for broken infrastructure only, and then the same batch is tried again: nothing may overtake it.
//! What the store refuses for good is found by settling one message at a time, and is set aside as a dead letter, so
//! that one bad message never stops the others (law 6). What fails for a reason that nobody knows is tried a few times,
//! and then set aside as well if others go through; if nothing does, it goes back to the queue, and the listener goes on
//! trying with growing pauses, loudly.
//!
//! # Pace
//!
//! A commit of few rows costs much more for each of them than one of a thousand. So after a settle the listener lets
//! the next batch gather ([`linger`]): shortly while little comes, so that lists and streams are fresh, and for longer
//! the more comes, because then there is no processor to waste. When nothing has happened for that long, the first
//! event goes through at once. Nobody waits for it: `/status` sees what is accepted without it.

mod unclear;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use crate::component::{Component, Stop, step_back};
use crate::domain::apply::{self, Change, Item};
use crate::domain::dead_letter::{DeadLetter, Reason};
use crate::domain::event::{Accepted, PLSQL};
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::process::{Policy, State};
use crate::domain::time::Timestamp;
use crate::store::{Claim, ListenerSession, Message, Result, StoreError};
use crate::telemetry::metrics::{Metrics, StoreCall};
use crate::telemetry::traces::{Applying, Tracer};

pub use self::unclear::Unclear;

/// Messages of one batch: beyond this a batch saves no more, and holds the writer's lock for longer than a tenth of a
/// second.
pub const BATCH_MAX: usize = 4000;
/// So many waiting messages are worth a commit at once: the curve of cost per event is flat from here on.
pub const BATCH_ENOUGH: u64 = 1000;
/// The shortest time from one batch to the next.
pub const LINGER_MIN: Duration = Duration::from_millis(2);
/// The longest that a waiting message lets others gather.
pub const LINGER_MAX: Duration = Duration::from_millis(20);
/// What each message of the last batch adds to the time from it to the next. So at 10,000 events a second a batch is
/// due every 5 ms, and from some 15,000 on every [`LINGER_MAX`]. At 10,000 an event costs the listener about 15 % more
/// than with 20 ms always (31 us against 27 in alternating rounds), and half of the events are in their streams within
/// 8 ms of the answer instead of within 15 to 28.
pub const LINGER_PER_MESSAGE: Duration = Duration::from_micros(60);
/// How often the gathering is looked at.
const GATHER_PAUSE: Duration = Duration::from_millis(5);
/// How long a claim waits for a first message. The watermark is behind by this much while nothing happens.
const CLAIM_WAIT: Duration = Duration::from_millis(250);
/// A message on its own that the store fails on for no known reason is tried so often before it is given back.
const UNCLEAR_TRIES: u32 = 3;
/// The first pause after the store failed, and the longest.
pub const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Up to when everything received has been applied: the start of the last claim that came back with fewer messages
/// than it asked for, once those were settled (law 4). One is shared by listener and reaper.
#[derive(Debug, Default)]
pub struct Watermark(AtomicI64);

impl Watermark {
    /// The moment, or None before the first.
    pub fn get(&self) -> Option<Timestamp> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            micros => Some(Timestamp::from_micros(micros)),
        }
    }

    /// Moves it to `moment`, never backwards, but for one that lies after `now`: the clock was set back since, and what
    /// was received from then on is behind that mark and may not be applied.
    pub fn advance(&self, moment: Timestamp, now: Timestamp) {
        if moment > now {
            return;
        }
        let later = |mark: i64| match Timestamp::from_micros(mark) {
            mark if mark > now => Some(moment.micros()),
            mark => (mark < moment).then_some(moment.micros()),
        };
        // Nothing to move is no failure.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }
}

/// Told about every batch that is applied, after its commit: the live streams of this process.
pub type AppliedHook = Box<dyn FnMut(&[Arc<Accepted>], Timestamp) + Send>;

/// What a listener works with besides its session.
pub struct Listener {
    pub policy: Policy,
    /// The store's clock.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// What is accepted and not applied: how many, and when the oldest was received.
    pub backlog: Arc<dyn Fn() -> (u64, Option<Timestamp>) + Send + Sync>,
    pub metrics: Arc<Metrics>,
    pub watermark: Arc<Watermark>,
    pub applied: Option<AppliedHook>,
    /// The first pause after the store failed: [`RETRY_PAUSE`], but for tests that wait for nothing.
    pub retry_pause: Duration,
    /// None: nothing is traced.
    pub tracer: Option<Tracer>,
    pub unclear: Unclear,
}

/// What one pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Messages that were settled.
    pub settled: usize,
    /// There was nothing more when the claim was made.
    pub drained: bool,
}

/// Starts listener number `number`.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    number: usize,
    mut session: Box<dyn ListenerSession>,
    mut listener: Listener,
    ended: Sender<String>,
) -> io::Result<Component> {
    Component::start(format!("listener-{number}"), ended, move |stop| {
        // Whoever posts waits for intake; nobody waits for a batch.
        step_back();
        let mut jitter = Jitter::new(number);
        while !stop.is_set() {
            let began = Instant::now();
            let passed = listener.pass(&mut *session, CLAIM_WAIT, &stop, &mut jitter)?;
            if passed.settled > 0
                && passed.drained
                && !listener.gather(began, linger(passed.settled), &stop)
            {
                break;
            }
        }
        Ok(())
    })
}

impl Listener {
    /// Applies one batch: claim → load → decide → settle. Tries again, the same batch, while the store is only
    /// passing through a bad time.
    ///
    /// # Errors
    /// When the store says that trying again cannot help.
    pub fn pass(
        &mut self,
        session: &mut dyn ListenerSession,
        wait: Duration,
        stop: &Stop,
        jitter: &mut Jitter,
    ) -> anyhow::Result<Passed> {
        let began = (self.clock)();
        let claimed =
            self.persist("claim", stop, jitter, || session.claim(BATCH_MAX, wait, stop))?;
        let Some(mut claim) = claimed else { return Ok(Passed::default()) };
        self.decide_traces(&mut claim.messages);
        let passed = Passed { settled: claim.messages.len(), drained: claim.drained };
        if !claim.messages.is_empty() && !self.apply(session, &claim, stop, jitter)? {
            return Ok(Passed::default());
        }
        if passed.drained && !stop.is_set() {
            self.watermark.advance(began, (self.clock)());
        }
        let (_, oldest) = (self.backlog)();
        let lag = oldest.map_or(0.0, |oldest| (self.clock)().since(oldest).as_secs_f64());
        self.metrics.processor_lag_seconds.set(lag);
        self.metrics.projection_lag_seconds.set(lag);
        Ok(passed)
    }

    /// Decides which reports of PL/SQL are traced, as a door does for what comes through it.
    fn decide_traces(&self, messages: &mut [Message]) {
        let Some(tracer) = &self.tracer else { return };
        for message in messages {
            let Message::Event(event) = message else { continue };
            if event.envelope.source.as_str() == PLSQL {
                let sampled = tracer.samples(&event.envelope.trace);
                Arc::make_mut(event).envelope.trace.sampled = sampled;
            }
        }
    }

    /// Applies a claim. False: it is time to stop, and the claim was not settled.
    fn apply(
        &mut self,
        session: &mut dyn ListenerSession,
        claim: &Claim,
        stop: &Stop,
        jitter: &mut Jitter,
    ) -> anyhow::Result<bool> {
        let claimed_at = (self.clock)();
        for event in events(&claim.messages) {
            let latency = claimed_at.since(event.received_at).as_secs_f64();
            self.metrics.dequeue_latency_seconds.observe(latency);
        }
        let attempt = self.persist("settle", stop, jitter, || {
            match self.settle(session, &claim.messages, claim.drained, None) {
                Err(StoreError::Refused { call, source }) => {
                    log::error!("{call}: a batch is refused, its messages go one by one: {source}");
                    Ok(Attempt::OneByOne)
                }
                Err(StoreError::Unclear { call, source }) => {
                    log::error!("{call}: nobody knows why a batch fails, its messages go one by one: {source}");
                    Ok(Attempt::OneByOne)
                }
                Err(StoreError::Released { call, source }) => {
                    log::warn!("{call}: a batch is claimed again: {source}");
                    Ok(Attempt::Released)
                }
                other => other.map(Attempt::Settled),
            }
        })?;
        match attempt {
            None | Some(Attempt::Released) => Ok(false),
            Some(Attempt::Settled(settled)) => {
                self.unclear.note_settled(&claim.messages);
                self.note(&claim.messages, claimed_at, settled);
                Ok(true)
            }
            Some(Attempt::OneByOne) => {
                self.apply_one_by_one(session, claim, claimed_at, stop, jitter)
            }
        }
    }

    /// Settles each message of a refused batch on its own, and sets aside the one that is refused alone too.
    fn apply_one_by_one(
        &mut self,
        session: &mut dyn ListenerSession,
        claim: &Claim,
        claimed_at: Timestamp,
        stop: &Stop,
        jitter: &mut Jitter,
    ) -> anyhow::Result<bool> {
        let settled_before = self.unclear.settled;
        let mut failed = Vec::new();
        for message in &claim.messages {
            match self.try_one(session, message, None, stop, jitter)? {
                One::Settled(settled) => {
                    let one = std::slice::from_ref(message);
                    self.unclear.note_settled(one);
                    self.note(one, claimed_at, settled);
                }
                One::Unclear(words) => failed.push((message, words)),
                One::Gone => return Ok(false),
            }
        }
        if failed.is_empty() {
            return Ok(true);
        }
        // Only now, since the ones behind a failure tell whether it was its own. A claim is given back whole or not at
        // all: once a part of it was written, what fails goes aside with it.
        let others_went = failed.len() < claim.messages.len();
        let are_to_blame = failed.iter().fold(true, |all, (message, _)| {
            self.unclear.is_to_blame(message, settled_before) && all
        });
        for (message, words) in failed {
            if !others_went && !are_to_blame {
                log::error!("messages are given back, since nothing goes through: {words}");
                session.give_back();
                return Ok(false);
            }
            log::error!("a message is set aside, since others go through: {words}");
            match self.try_one(session, message, Some(&words), stop, jitter)? {
                One::Settled(settled) => {
                    let one = std::slice::from_ref(message);
                    self.unclear.note_settled(one);
                    self.note(one, claimed_at, settled);
                }
                One::Unclear(words) => {
                    log::error!("nor can it be set aside, so all of it is given back: {words}");
                    session.give_back();
                    return Ok(false);
                }
                One::Gone => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Settles one message, or finds that it cannot be settled. `refusal`: it is set aside unapplied, for this reason.
    fn try_one(
        &self,
        session: &mut dyn ListenerSession,
        message: &Message,
        refusal: Option<&str>,
        stop: &Stop,
        jitter: &mut Jitter,
    ) -> anyhow::Result<One> {
        let one = std::slice::from_ref(message);
        let mut tries = 0;
        let settled = self.persist("settle", stop, jitter, || {
            match self.settle(session, one, false, refusal.map(str::to_owned)) {
                Err(StoreError::Refused { call, source }) if refusal.is_none() => self
                    .settle(session, one, false, Some(format!("{call}: {source}")))
                    .map(One::Settled),
                Err(StoreError::Released { call, source }) => {
                    log::warn!("{call}: what is left of a batch is claimed again: {source}");
                    Ok(One::Gone)
                }
                Err(StoreError::Unclear { call, source }) if tries + 1 >= UNCLEAR_TRIES => {
                    Ok(One::Unclear(format!("{call}: {source}")))
                }
                Err(error @ StoreError::Unclear { .. }) => {
                    tries += 1;
                    Err(error)
                }
                other => other.map(One::Settled),
            }
        })?;
        Ok(settled.unwrap_or(One::Gone))
    }

    /// One attempt at messages of a claim. `refusal`: they are set aside unapplied, for this reason.
    fn settle(
        &self,
        session: &mut dyn ListenerSession,
        messages: &[Message],
        drained: bool,
        refusal: Option<String>,
    ) -> Result<Settled> {
        let now = (self.clock)();
        let began = Instant::now();
        let change = match refusal {
            Some(detail) => Change {
                dead_letters: messages.iter().map(|m| set_aside(m, &detail, now)).collect(),
                ..Change::default()
            },
            None => {
                let items: Vec<Item<'_>> = messages.iter().map(Message::item).collect();
                let touched = apply::touched(&items);
                let states = session.load(&touched)?;
                let loaded: BTreeMap<(TenantId, ProcessId), State> = touched
                    .into_iter()
                    .zip(states)
                    .filter_map(|(process, state)| Some((process, state?)))
                    .collect();
                apply::decide(&items, loaded, &self.policy, now, &State::merge)
            }
        };
        let settled = Settled {
            events: change.events.clone(),
            set_aside: change
                .dead_letters
                .iter()
                .map(|letter| (letter.id, letter.reason))
                .collect(),
            // Read again at the end: freshness counts to the commit.
            at: now,
        };
        session.settle(Claim { messages: messages.to_vec(), drained }, change, now)?;
        self.metrics.store_call(StoreCall::Settle, began.elapsed());
        Ok(Settled { at: (self.clock)(), ..settled })
    }

    /// Counts what was committed of `messages`, and tells those who watch.
    fn note(&mut self, messages: &[Message], claimed: Timestamp, settled: Settled) {
        let Settled { events, set_aside, at } = settled;
        for event in &events {
            let trace = &event.envelope.trace;
            let traced = (self.tracer.is_some() && trace.sampled).then_some(trace.trace_id);
            self.metrics.fresh(at.since(event.received_at), traced);
            if event.envelope.event_type.as_str() == crate::domain::process::expiry::TYPE {
                self.metrics.process_expired.inc();
            }
        }
        if !events.is_empty() {
            self.metrics.processed("success", u64::try_from(events.len()).unwrap_or(u64::MAX));
        }
        if !set_aside.is_empty() {
            self.metrics.processed("dlq", u64::try_from(set_aside.len()).unwrap_or(u64::MAX));
        }
        for (_, reason) in &set_aside {
            self.metrics.dead_letter(*reason);
        }
        if let Some(applied) = &mut self.applied {
            applied(&events, at);
        }
        if let Some(tracer) = &self.tracer {
            let applying = Applying { claimed, committed: at };
            for event in self::events(messages).filter(|event| event.envelope.trace.sampled) {
                let letter = set_aside.iter().find(|(position, _)| *position == event.position);
                tracer.applied(event, applying, letter.map(|(_, reason)| *reason));
            }
        }
    }

    /// Repeats `attempt` while the store is busy, full or gone, with longer and longer pauses. None: it is time to
    /// stop.
    fn persist<T>(
        &self,
        what: &'static str,
        stop: &Stop,
        jitter: &mut Jitter,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> anyhow::Result<Option<T>> {
        let mut pause = self.retry_pause;
        loop {
            match attempt() {
                Ok(value) => return Ok(Some(value)),
                Err(error) if error.is_transient() => {
                    log::warn!("{what} is put off: {error}");
                    self.metrics.processed("retry", 1);
                    if !stop.sleep(jitter.spread(pause)) {
                        return Ok(None);
                    }
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets the next batch gather for `linger` since the last one began. False: it is time to stop.
    fn gather(&self, began: Instant, linger: Duration, stop: &Stop) -> bool {
        loop {
            let left = linger.saturating_sub(began.elapsed());
            if left.is_zero() || (self.backlog)().0 >= BATCH_ENOUGH {
                return !stop.is_set();
            }
            if !stop.sleep(left.min(GATHER_PAUSE)) {
                return false;
            }
        }
    }
}

/// How long after a batch of `settled` messages began the next one is due.
fn linger(settled: usize) -> Duration {
    let per_message =
        LINGER_PER_MESSAGE * u32::try_from(settled.min(BATCH_MAX)).unwrap_or(u32::MAX);
    (LINGER_MIN + per_message).min(LINGER_MAX)
}

/// How an attempt at a whole batch came out.
enum Attempt {
    Settled(Settled),
    /// It was not settled, for one of its messages or for no known reason.
    OneByOne,
    /// The queue has the messages again.
    Released,
}

/// How an attempt at a message on its own came out.
enum One {
    Settled(Settled),
    /// Nobody knows why it fails.
    Unclear(String),
    /// The queue has it again, or it is time to stop.
    Gone,
}

/// What a committed attempt leaves to be counted.
struct Settled {
    events: Vec<Arc<Accepted>>,
    /// The positions of the dead letters, and why they are some.
    set_aside: Vec<(i64, Reason)>,
    at: Timestamp,
}

/// Spreads pauses, so that threads that failed together do not come back together.
#[derive(Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// A sequence of its own for each thread.
    pub fn new(seed: usize) -> Self {
        Self(u64::try_from(seed).unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A pause between half of `pause` and all of it.
    pub fn spread(&mut self, pause: Duration) -> Duration {
        // Xorshift: spreading is all that is asked of it.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let share = u32::try_from(self.0 >> 48).unwrap_or(0);
        pause / 2 + (pause / 2) * share / 65_536
    }
}

fn events(messages: &[Message]) -> impl Iterator<Item = &Arc<Accepted>> {
    messages.iter().filter_map(|message| match message {
        Message::Event(event) => Some(event),
        Message::Undecodable { .. } => None,
    })
}

/// The dead letter of a message that the store refuses.
fn set_aside(message: &Message, detail: &str, now: Timestamp) -> DeadLetter {
    // The domain writes the letter of what cannot be read; for an event only the reason differs.
    if let Message::Event(event) = message {
        let envelope = &event.envelope;
        return DeadLetter {
            id: event.position,
            tenant: envelope.tenant.as_str().to_string(),
            reason: Reason::InvalidPayload,
            detail: detail.to_string(),
            snapshot: serde_json::to_string(&**event).unwrap_or_default(),
            event_id: Some(envelope.event_id.as_str().to_string()),
            source: Some(envelope.source.as_str().to_string()),
            stream_key: Some(envelope.stream.as_str().to_string()),
            stream_seq: Some(event.stream_seq),
            created_at: now,
        };
    }
    let policy = Policy { timeout: Duration::ZERO, heartbeat_interval: Duration::ZERO };
    let mut change = apply::decide(&[message.item()], BTreeMap::new(), &policy, now, &State::merge);
    change.dead_letters.remove(0)
}

#[cfg(test)]
mod tests;
