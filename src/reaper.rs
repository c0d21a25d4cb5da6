//! Finds processes that have been silent for too long and says so with an event. This module is the `reaper` thread.
//!
//! Silence proves nothing: the process may be dead, slow, or cut off from us. So an expiry is an event like any
//! other, posted through intake under an id that follows from what was judged: said twice it is one event, and any
//! later sign of life undoes it (law 4).
//!
//! # When nobody is judged
//!
//! Whoever was kept from being heard must first get the time to be heard. So nothing is judged beyond the
//! watermark, nor before one heartbeat interval has passed since the reaper began, since the store refused a write
//! or a read, or since the wall clock jumped against the steady one (a suspended machine, a corrected clock).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{SendTimeoutError, Sender};

use crate::component::Component;
use crate::domain::event::{Envelope, TraceContext, Verdict};
use crate::domain::process::Policy;
use crate::domain::process::expiry::{self, Verdict as Judgement};
use crate::domain::time::Timestamp;
use crate::intake::Posting;
use crate::listener::Watermark;
use crate::mailbox::{Address, Answer, ChannelMailbox, ReplyTo};
use crate::store::{KeeperSession, Result};

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
    /// Since when, on the steady clock, everybody could be heard. None: not now.
    heard_since: Option<Duration>,
    /// Both clocks at the last pass.
    last: Option<(Timestamp, Duration)>,
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
        Self { policy, instance, watermark, postings, takes_writes, heard_since: None, last: None }
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
            Some(until) if self.may_judge(now, steady) => until,
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
        let mut lost = Vec::new();
        for overdue in session.overdue(until, BATCH_MAX)? {
            let judgement = expiry::judge(
                &overdue.state,
                &overdue.tenant,
                &overdue.process,
                &self.policy,
                until,
                overdue.last_log_at,
                &self.instance,
                trace(),
            );
            match judgement {
                Judgement::Lost(envelope) => lost.push(*envelope),
                Judgement::Lives { deadline } => {
                    // One that is not waited for at all has no deadline once its next event is applied.
                    let deadline = deadline.unwrap_or_else(|| until.plus(self.policy.timeout));
                    session.put_off(&overdue.tenant, &overdue.process, deadline)?;
                    passed.put_off += 1;
                }
            }
        }
        if !lost.is_empty() {
            match self.post(lost) {
                Some(expired) => passed.expired = expired,
                // The others could not post their heartbeats either.
                None => self.heard_since = None,
            }
        }
        Ok(passed)
    }

    /// Posts expiries through intake, like everybody's events. None: the store took nothing.
    fn post(&self, envelopes: Vec<Envelope>) -> Option<usize> {
        let (mailbox, letters) = ChannelMailbox::new();
        let address = Address { slot: 0, generation: 0 };
        let reply = ReplyTo { mailbox, address, context: Box::new(()) };
        match self.postings.send_timeout(Posting { envelopes, reply, room: None }, ANSWER_WAIT) {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_) | SendTimeoutError::Disconnected(_)) => return None,
        }
        let letter = letters.recv_timeout(ANSWER_WAIT).ok()?;
        match letter.answer {
            Answer::Verdicts(verdicts) => {
                let mut durable = 0;
                for verdict in &verdicts {
                    match verdict {
                        Verdict::Accepted(_) | Verdict::Replayed(_) => durable += 1,
                        Verdict::KeyReused | Verdict::EventIdReused => {
                            log::error!("the id of an expiry was used for something else");
                        }
                        Verdict::Unavailable(_) => return None,
                    }
                }
                Some(durable)
            }
            Answer::Logged(_) | Answer::Unavailable(_) => None,
        }
    }
}

/// A trace of its own for each judgement: nobody caused it but time.
fn trace() -> TraceContext {
    TraceContext { trace_id: uuid::Uuid::now_v7().into_bytes(), parent_id: [0; 8], sampled: false }
}
