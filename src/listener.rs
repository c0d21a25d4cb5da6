//! Applies what was accepted: claim, load, decide in pure code, settle. This module is the `listener-N` thread.
//!
//! A rollback is for broken infrastructure only, and then the same batch is tried again: nothing may overtake it.
//! What the store refuses for good is found by settling one message at a time, and is set aside as a dead letter, so
//! that one bad message never stops the others (law 6).
//!
//! # Pace
//!
//! A commit of few rows costs nearly as much as one of a thousand. So after a settle the listener lets the next
//! batch gather, for at most [`LINGER`]; when nothing has happened for that long, the first event goes through at
//! once. Nobody waits for it: `/status` sees what is accepted without it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use crate::component::{Component, Stop};
use crate::domain::apply::{self, Change, Item};
use crate::domain::dead_letter::{DeadLetter, Reason};
use crate::domain::event::Accepted;
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::process::{Policy, State};
use crate::domain::time::Timestamp;
use crate::store::{Claim, ListenerSession, Message, Result, StoreError};
use crate::telemetry::metrics::Metrics;

/// Messages of one batch: beyond this a batch saves no more, and holds the writer's lock for longer than a tenth of a
/// second.
pub const BATCH_MAX: usize = 4000;
/// So many waiting messages are worth a commit at once: the curve of cost per event is flat from here on.
pub const BATCH_ENOUGH: u64 = 1000;
/// The longest that a waiting message lets others gather.
pub const LINGER: Duration = Duration::from_millis(20);
/// How often the gathering is looked at.
const GATHER_PAUSE: Duration = Duration::from_millis(5);
/// How long a claim waits for a first message. The watermark is behind by this much while nothing happens.
const CLAIM_WAIT: Duration = Duration::from_millis(250);
/// The first pause after the store failed, and the longest.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
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

    /// Moves it to `moment`, never backwards.
    pub fn advance(&self, moment: Timestamp) {
        self.0.fetch_max(moment.micros(), Ordering::AcqRel);
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
        let mut jitter = Jitter::new(number);
        while !stop.is_set() {
            let began = Instant::now();
            let passed = listener.pass(&mut *session, CLAIM_WAIT, &stop, &mut jitter)?;
            if passed.settled > 0 && passed.drained && !listener.gather(began, &stop) {
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
        let Some(claim) = claimed else { return Ok(Passed::default()) };
        let passed = Passed { settled: claim.messages.len(), drained: claim.drained };
        if !claim.messages.is_empty() && !self.apply(session, &claim, stop, jitter)? {
            return Ok(Passed::default());
        }
        if passed.drained && !stop.is_set() {
            self.watermark.advance(began);
        }
        let (_, oldest) = (self.backlog)();
        let lag = oldest.map_or(0.0, |oldest| (self.clock)().since(oldest).as_secs_f64());
        self.metrics.processor_lag_seconds.set(lag);
        self.metrics.projection_lag_seconds.set(lag);
        Ok(passed)
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
                    Ok(None)
                }
                other => other.map(Some),
            }
        })?;
        match attempt {
            None => Ok(false),
            Some(Some(settled)) => {
                self.note(settled);
                Ok(true)
            }
            Some(None) => self.apply_one_by_one(session, claim, stop, jitter),
        }
    }

    /// Settles each message of a refused batch on its own, and sets aside the one that is refused alone too.
    fn apply_one_by_one(
        &mut self,
        session: &mut dyn ListenerSession,
        claim: &Claim,
        stop: &Stop,
        jitter: &mut Jitter,
    ) -> anyhow::Result<bool> {
        for message in &claim.messages {
            let one = std::slice::from_ref(message);
            let settled = self.persist("settle", stop, jitter, || {
                match self.settle(session, one, false, None) {
                    Err(StoreError::Refused { call, source }) => {
                        self.settle(session, one, false, Some(format!("{call}: {source}")))
                    }
                    other => other,
                }
            })?;
            match settled {
                Some(settled) => self.note(settled),
                None => return Ok(false),
            }
        }
        Ok(true)
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
                let items: Vec<Item<'_>> = messages.iter().map(item).collect();
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
            reasons: change.dead_letters.iter().map(|letter| letter.reason).collect(),
            // Read again at the end: freshness counts to the commit.
            at: now,
        };
        session.settle(Claim { messages: messages.to_vec(), drained }, change, now)?;
        self.metrics.store_call("settle", began.elapsed());
        Ok(Settled { at: (self.clock)(), ..settled })
    }

    /// Counts what was committed, and tells those who watch.
    fn note(&mut self, settled: Settled) {
        let Settled { events, reasons, at } = settled;
        for event in &events {
            let freshness = at.since(event.received_at).as_secs_f64();
            self.metrics.end_to_end_freshness_seconds.observe(freshness);
            if event.envelope.event_type.as_str() == crate::domain::process::expiry::TYPE {
                self.metrics.process_expired.inc();
            }
        }
        if !events.is_empty() {
            self.metrics.processed("success", u64::try_from(events.len()).unwrap_or(u64::MAX));
        }
        if !reasons.is_empty() {
            self.metrics.processed("dlq", u64::try_from(reasons.len()).unwrap_or(u64::MAX));
        }
        for reason in reasons {
            self.metrics.dead_letter(reason);
        }
        if let Some(applied) = &mut self.applied {
            applied(&events, at);
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
        let mut pause = RETRY_PAUSE;
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

    /// Lets the next batch gather after one that began at `began`. False: it is time to stop.
    fn gather(&self, began: Instant, stop: &Stop) -> bool {
        loop {
            let left = LINGER.saturating_sub(began.elapsed());
            if left.is_zero() || (self.backlog)().0 >= BATCH_ENOUGH {
                return !stop.is_set();
            }
            if !stop.sleep(left.min(GATHER_PAUSE)) {
                return false;
            }
        }
    }
}

/// What a committed attempt leaves to be counted.
struct Settled {
    events: Vec<Arc<Accepted>>,
    reasons: Vec<Reason>,
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

fn item(message: &Message) -> Item<'_> {
    match message {
        Message::Event(event) => Item::Event(event),
        Message::Undecodable { position, bytes, problem } => {
            Item::Undecodable { position: *position, bytes, problem }
        }
    }
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
    let mut change = apply::decide(&[item(message)], BTreeMap::new(), &policy, now, &State::merge);
    change.dead_letters.remove(0)
}
