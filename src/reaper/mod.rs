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
//! rows are shed, nobody is judged who has ever said some: they may be all that shows that it lives. Where the store
//! takes no expiries of one tenant, because it has its share, those of the others are judged all the same.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use crate::component::Component;
use crate::domain::event::{Envelope, TraceContext, Verdict};
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::process::Policy;
use crate::domain::process::expiry::{self, Verdict as Judgement, Why};
use crate::domain::time::Timestamp;
use crate::intake::Posting;
use crate::listener::Watermark;
use crate::mailbox::{Address, Answer, ChannelMailbox, Mailbox, ReplyTo};
use crate::store::{KeeperSession, Overdue, Result};
use crate::telemetry::metrics::{Metrics, StoreCall};
use crate::telemetry::traces::Tracer;

/// Processes judged in one pass. The rest is found by the next one.
pub const BATCH_MAX: usize = 500;
/// Between two passes. An expiry is late by this much at most, beside timeouts of minutes.
const PAUSE: Duration = Duration::from_secs(1);
/// Wall and steady clock may differ by this much between two passes before it counts as a jump.
const JUMP_MAX: Duration = Duration::from_secs(5);
/// How long a full channel and the answers are waited for, together. What is unanswered is judged again, to the same id.
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

/// A process that is lost, and the event that says so.
struct Lost {
    process: ProcessId,
    expiry: Envelope,
    /// The session that started it is gone, so that it is found whatever its deadline is.
    deserted: bool,
}

/// What became of an expiry that was posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// It is durable, now or before.
    Durable,
    /// Its id was used for something else.
    Contradicted,
    /// The tenant has its share of the backlog. So it could not post signs of life either, and the others could.
    HeldBack,
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
        let mut lost: BTreeMap<TenantId, Vec<Lost>> = BTreeMap::new();
        for overdue in metrics.timed(StoreCall::Overdue, || session.overdue(until, BATCH_MAX))? {
            let unheard = overdue.last_log_at.is_some() && !(self.takes_logs)();
            let deadline = match self.judgement(&overdue, until, Why::Deadline) {
                Judgement::Lost(_) if unheard => until.plus(self.policy.heartbeat_interval),
                Judgement::Lost(expiry) => {
                    let Overdue { tenant, process, .. } = overdue;
                    let expiry = Lost { process, expiry: *expiry, deserted: false };
                    lost.entry(tenant).or_default().push(expiry);
                    continue;
                }
                // One that is not waited for at all has no deadline once its next event is applied.
                Judgement::Lives { deadline } => {
                    deadline.unwrap_or_else(|| until.plus(self.policy.timeout))
                }
            };
            self.put_off(session, &overdue.tenant, &overdue.process, deadline)?;
            passed.put_off += 1;
        }
        // One that is lost either way is one event, whichever of the two says so.
        for found in metrics.timed(StoreCall::Deserted, || session.deserted(until, BATCH_MAX))? {
            // Who is not lost has said something that came by another way: the deadline is for them.
            if let Judgement::Lost(expiry) = self.judgement(&found, until, Why::SessionGone) {
                let Overdue { tenant, process, .. } = found;
                let expiry = Lost { process, expiry: *expiry, deserted: true };
                lost.entry(tenant).or_default().push(expiry);
            }
        }
        for ((tenant, lost), told) in lost.iter().zip(self.post(&lost)) {
            let Some(told) = told else {
                // The others could not post their heartbeats either.
                self.heard_since = None;
                continue;
            };
            for (lost, told) in lost.iter().zip(told) {
                match told {
                    Told::Durable => passed.expired += 1,
                    Told::Contradicted | Told::HeldBack => {
                        // The longest overdue come first, so those that stay so must not fill the portion of the
                        // others.
                        let deadline = until.plus(self.policy.heartbeat_interval);
                        self.put_off(session, tenant, &lost.process, deadline)?;
                        passed.put_off += 1;
                    }
                }
                // Only now: what is not decided yet must be found again.
                if lost.deserted && told != Told::HeldBack {
                    session.forget_session(tenant, &lost.process)?;
                }
            }
        }
        Ok(passed)
    }

    fn put_off(
        &self,
        session: &mut dyn KeeperSession,
        tenant: &TenantId,
        process: &ProcessId,
        deadline: Timestamp,
    ) -> Result<()> {
        self.metrics.timed(StoreCall::PutOff, || session.put_off(tenant, process, deadline))
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

    /// Posts expiries through intake, like everybody's events, and returns for each tenant what became of its expiries.
    /// Those of each tenant go on their own, since room is decided about by tenant. None: the store took nothing of
    /// them, or did not answer in time.
    fn post(&self, lost: &BTreeMap<TenantId, Vec<Lost>>) -> Vec<Option<Vec<Told>>> {
        let (mailbox, letters) = ChannelMailbox::new();
        let deadline = Instant::now() + ANSWER_WAIT;
        for (slot, lost) in (0..).zip(lost.values()) {
            let reply = ReplyTo {
                mailbox: Arc::clone(&mailbox) as Arc<dyn Mailbox>,
                address: Address { slot, generation: 0 },
                context: Box::new(()),
            };
            let envelopes = lost.iter().map(|lost| lost.expiry.clone()).collect();
            let posting = Posting { envelopes, reply, room: None, traced: None };
            if self.postings.send_deadline(posting, deadline).is_err() {
                break;
            }
        }
        // The letters end with the last posting.
        drop(mailbox);
        let mut answers: HashMap<u32, Answer> = HashMap::new();
        while let Ok(letter) = letters.recv_deadline(deadline) {
            answers.insert(letter.address.slot, letter.answer);
        }
        let outcome = |(slot, lost): (u32, &Vec<Lost>)| match answers.get(&slot)? {
            Answer::Verdicts(verdicts) => {
                verdicts.iter().zip(lost).map(|(verdict, lost)| told(verdict, lost)).collect()
            }
            Answer::HeldBack(_) => Some(vec![Told::HeldBack; lost.len()]),
            Answer::Logged(_) | Answer::Unavailable(_) => None,
        };
        (0..).zip(lost.values()).map(outcome).collect()
    }
}

/// What a verdict says of an expiry. None: it was not taken.
fn told(verdict: &Verdict, lost: &Lost) -> Option<Told> {
    match verdict {
        Verdict::Accepted(_) | Verdict::Replayed(_) => Some(Told::Durable),
        Verdict::KeyReused | Verdict::EventIdReused => {
            log::error!("the id of an expiry of {:?} was used for something else", lost.process);
            Some(Told::Contradicted)
        }
        Verdict::HeldBack(_) => Some(Told::HeldBack),
        Verdict::Unavailable(_) => None,
    }
}
