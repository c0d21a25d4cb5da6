//! The accepting side of the embedded store. This module decides about posted envelopes, numbers them, and makes a
//! whole batch durable with one commit.
//!
//! The order of a batch is the promise: decide (repeats, numbers) in memory, write, commit, and only then show the
//! events to readers and tell the callers. What must stay true: after an error every decision of the batch is taken
//! back, so memory says what the disk says; and nothing is decided before everything that the log holds since
//! before the start is known again.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::connection::{classify, open_reader};
use super::folder::{Folder, Space};
use super::idempotency::{Identities, Identity};
use super::log::{self as log_db, Log, LogReader};
use super::numbers::{Numbers, applied_seq};
use super::overlay::Overlay;
use super::wal::WalGauge;
use crate::domain::event::{Accepted, Envelope, Receipt, Verdict, ordered_at};
use crate::domain::time::Timestamp;
use crate::store::{IntakeSession, Message, Result, StoreError, WriteState};

/// Rows read at once when the log is replayed.
const REPLAY_ROWS: usize = 1000;

/// How often a store that refused a write is tried again, at most.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// What two receipts differ by at least.
const TICK: Duration = Duration::from_micros(1);

/// Up to this much the clock may be set back, and receipts go on rising all the same. Further back it was plainly wrong
/// before, and the new time is the better one.
const SET_BACK_MAX: Duration = Duration::from_secs(3600);

const BACKLOG_FULL: &str = "too many accepted events wait to be applied";
const SHARE_TAKEN: &str = "your tenant holds as much of what waits to be applied as is left to others; nothing of this \
                           request was kept";
const CATCHING_UP: &str = "the store is applying what it accepted before its last start";

/// What of the configuration intake goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// An event's own time may lie this far back (law 3).
    pub retention: Duration,
    /// How long keys and event ids are remembered.
    pub idempotency: Duration,
}

/// The one session that accepts events.
pub(super) struct Intake {
    overlay: Arc<Overlay>,
    space: Arc<Space>,
    wal: Arc<WalGauge>,
    settings: Settings,
    log: Log,
    /// The projection, for look-ups.
    events: Connection,
    numbers: Numbers,
    identities: Identities,
    /// What the log holds since before the start and is not known here yet. None: all is known.
    replay: Option<Replay>,
    probed_at: Option<Timestamp>,
    receipts: Receipts,
    /// Last, so that the files are closed before another instance may have them.
    folder: Arc<Folder>,
}

struct Replay {
    reader: LogReader,
    done_to: i64,
}

impl Intake {
    /// Opens the log, makes it if it is not there, and takes in what the projection lacks. `events.db` has been
    /// migrated, and `overlay` was made behind its cursor.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the log is damaged, or when log and projection are not of one moment.
    pub(super) fn open(
        folder: Arc<Folder>,
        overlay: Arc<Overlay>,
        space: Arc<Space>,
        wal: Arc<WalGauge>,
        settings: Settings,
        now: Timestamp,
    ) -> Result<Self> {
        let log = Log::open(&folder)?;
        let mut reader = LogReader::open(&folder)?;
        let applied = overlay.trimmed_to();
        fits(&mut reader, applied)?;
        overlay.log_ends_at(log.last());
        // Where the log was trimmed empty, the newest receipt is older than any clock is set back.
        let newest = match reader.read_after(log.last() - 1, 1)?.first() {
            Some(Message::Event(event)) => event.received_at,
            Some(Message::Undecodable { .. }) | None => Timestamp::default(),
        };
        let receipts = Receipts { newest, clock: newest };
        let events = open_reader(&folder.events_db())?;
        let identities = Identities::open(&events, settings.idempotency, now)?;
        let mut intake = Self {
            overlay,
            space,
            wal,
            settings,
            log,
            events,
            numbers: Numbers::default(),
            identities,
            replay: Some(Replay { reader, done_to: applied }),
            probed_at: None,
            receipts,
            folder,
        };
        intake.catch_up(now)?;
        Ok(intake)
    }

    /// The highest position that is durable.
    pub(super) fn log_end(&self) -> i64 {
        self.log.last()
    }

    /// Takes in the log from before the start, as far as there is room for it.
    fn catch_up(&mut self, now: Timestamp) -> Result<()> {
        while let Some(replay) = &mut self.replay
            && self.overlay.has_room()
        {
            let messages = replay.reader.read_after(replay.done_to, REPLAY_ROWS)?;
            let next = messages.first().map_or_else(|| self.log.last() + 1, Message::position);
            if next > replay.done_to + 1 {
                // While there was no room, rows were applied and trimmed that were never seen here. Everything up to
                // them is in the projection, so that is where to begin again.
                replay.done_to = next - 1;
                self.numbers = Numbers::default();
                self.identities = Identities::open(&self.events, self.settings.idempotency, now)?;
            }
            if messages.is_empty() {
                self.replay = None;
                break;
            }
            for message in messages {
                match message {
                    Message::Event(event) => {
                        // The numbers take in also what the projection has by now: they may know an older one.
                        self.numbers.replay(&event);
                        self.identities.add(&event, &Identity::of(&event.envelope));
                        self.identities.keep(event.position - 1, event.received_at);
                        replay.done_to = event.position;
                        self.overlay.add(&[event]);
                    }
                    // The listener sets it aside. Where its number and its identity can be read all the same, the
                    // number stays taken and a repeat is known.
                    Message::Undecodable { position, bytes, .. } => {
                        if let Some(event) = log_db::salvage(position, &bytes) {
                            self.numbers.replay(&event);
                            self.identities.add(&event, &Identity::of(&event.envelope));
                            self.identities.keep(position - 1, event.received_at);
                        }
                        replay.done_to = position;
                    }
                }
            }
            self.forget(now);
        }
        Ok(())
    }

    /// Lets go of what the projection has, where memory holds too much of it.
    fn forget(&mut self, now: Timestamp) {
        let trimmed_to = self.overlay.trimmed_to();
        self.numbers.forget(trimmed_to);
        self.identities.forget(now, trimmed_to);
    }

    /// Why nothing new is taken now. None: it is.
    fn closed(&mut self, now: Timestamp) -> Result<Option<&'static str>> {
        if self.space.is_refused() {
            self.probe(now)?;
        }
        Ok(match self.space.state() {
            WriteState::Closed(why) => Some(why),
            WriteState::Open | WriteState::SheddingLogs(_) => {
                (!self.overlay.has_room()).then_some(BACKLOG_FULL)
            }
        })
    }

    /// Tries whether the store takes writes again.
    fn probe(&mut self, now: Timestamp) -> Result<()> {
        // A clock that was set back must not put the probe off.
        let due = self.probed_at.is_none_or(|at| now < at || now.since(at) >= PROBE_PAUSE);
        if due {
            self.probed_at = Some(now);
            match log_db::probe(self.log.connection()) {
                Ok(()) => self.space.reopen(),
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn accept_all(&mut self, now: Timestamp, batch: Vec<Envelope>) -> Result<Vec<Verdict>> {
        match self.wal.restart_if_wanted(self.log.connection()) {
            Ok(_) => {}
            Err(StoreError::NoSpace { .. } | StoreError::Busy { .. }) => {}
            Err(error) => return Err(error),
        }
        self.catch_up(now)?;
        if self.replay.is_some() {
            return Ok(vec![Verdict::Unavailable(CATCHING_UP); batch.len()]);
        }
        // Before the look-ups: their snapshot has what is forgotten here.
        self.forget(now);
        let closed = self.closed(now)?;
        let (verdicts, accepted) = self.decide(now, batch, closed)?;
        let before = self.log.last();
        self.log.append(&accepted)?;
        if let Some(newest) = accepted.last() {
            self.receipts = Receipts { newest: newest.received_at, clock: now };
        }
        self.numbers.keep();
        self.identities.keep(before, self.receipts.newest);
        self.overlay.add(&accepted);
        Ok(verdicts)
    }

    fn decide(
        &mut self,
        now: Timestamp,
        batch: Vec<Envelope>,
        closed: Option<&'static str>,
    ) -> Result<(Vec<Verdict>, Vec<Arc<Accepted>>)> {
        let projection = Projection { events: &self.events, begun: Cell::new(false) };
        let mut verdicts = Vec::with_capacity(batch.len());
        let mut accepted = Vec::with_capacity(batch.len());
        let mut position = self.log.last();
        let mut received_at = self.receipts.next(now);
        let held_back = self.overlay.with_their_share(&batch);
        for envelope in batch {
            let identity = Identity::of(&envelope);
            let known =
                self.identities.judge(now, &identity, &envelope.hash, || projection.snapshot())?;
            verdicts.push(match (known, closed) {
                (Some(known), _) => known,
                (None, Some(why)) => Verdict::Unavailable(why),
                (None, None) if held_back.contains(&envelope.tenant) => {
                    Verdict::HeldBack(SHARE_TAKEN)
                }
                (None, None) => {
                    position += 1;
                    let (tenant, stream) = (&envelope.tenant, &envelope.stream);
                    let stream_seq = self.numbers.next(tenant, stream, position, || {
                        applied_seq(projection.snapshot()?, tenant, stream)
                    })?;
                    let event = self.settings.accepted(received_at, position, stream_seq, envelope);
                    let event = Arc::new(event);
                    self.identities.add(&event, &identity);
                    let receipt = Receipt {
                        event_id: event.envelope.event_id.clone(),
                        stream: event.envelope.stream.clone(),
                        stream_seq,
                        received_at,
                    };
                    received_at = received_at.plus(TICK);
                    accepted.push(event);
                    Verdict::Accepted(receipt)
                }
            });
        }
        Ok((verdicts, accepted))
    }
}

impl Settings {
    fn accepted(
        &self,
        received_at: Timestamp,
        position: i64,
        stream_seq: u64,
        envelope: Envelope,
    ) -> Accepted {
        let (ordered_at, clock_skew) =
            ordered_at(envelope.occurred_at, received_at, self.retention);
        Accepted { position, stream_seq, received_at, ordered_at, clock_skew, envelope }
    }
}

impl IntakeSession for Intake {
    fn accept(&mut self, now: Timestamp, batch: Vec<Envelope>) -> Result<Vec<Verdict>> {
        let outcome = self.accept_all(now, batch);
        if let Err(error) = &outcome {
            self.numbers.take_back();
            self.identities.take_back(self.log.last());
            match error {
                StoreError::NoSpace { why, .. } => self.space.refuse(why),
                StoreError::Io { .. } | StoreError::Corrupt { .. } => self.folder.taint(),
                StoreError::Busy { .. }
                | StoreError::Disconnected { .. }
                | StoreError::Unreachable { .. }
                | StoreError::Released { .. }
                | StoreError::Refused { .. }
                | StoreError::Unclear { .. }
                | StoreError::Other { .. } => {}
            }
        }
        outcome
    }
}

/// Where receipts stand. They rise with acceptance, also within a batch and after the clock was set back: they order the
/// events that bring no time of their own, and a run must not end before it began, nor be taken for an old one, because
/// a clock was corrected in between.
struct Receipts {
    /// The newest that was given.
    newest: Timestamp,
    /// What the clock said then.
    clock: Timestamp,
}

impl Receipts {
    /// The next one when the clock says `now`. While the clock is behind they rise at half its pace, so that it catches
    /// up and durations stay meaningful.
    fn next(&self, now: Timestamp) -> Timestamp {
        if now > self.newest || self.newest.since(now) > SET_BACK_MAX {
            return now;
        }
        self.newest.plus((now.since(self.clock) / 2).max(TICK))
    }
}

/// Whether the log holds what follows on the projection.
fn fits(reader: &mut LogReader, applied: i64) -> Result<()> {
    let last = reader.last_position()?;
    let what = if applied > last {
        format!(
            "log.db is older than events.db (log ends at {last}, events.db has applied {applied}): restore both from \
             the same backup; to go on without what came after {last}, move events.db away and run `sentinel rebuild`"
        )
    } else if last > applied && reader.first_position()?.is_none_or(|first| first > applied + 1) {
        format!(
            "events.db is older than log.db reaches back (events.db has applied {applied}, log.db ends at {last} and \
             lacks what follows on {applied}): restore both from the same backup, or run `sentinel rebuild`"
        )
    } else {
        return Ok(());
    };
    Err(StoreError::Corrupt { what })
}

/// The projection for the look-ups of one batch: one read transaction for all of them, and none where no look-up
/// comes.
struct Projection<'c> {
    events: &'c Connection,
    begun: Cell<bool>,
}

impl<'c> Projection<'c> {
    fn snapshot(&self) -> Result<&'c Connection> {
        if !self.begun.get() {
            self.events
                .prepare_cached("BEGIN")
                .and_then(|mut begin| begin.execute([]))
                .map_err(|error| classify("begin a look-up", error))?;
            self.begun.set(true);
        }
        Ok(self.events)
    }
}

impl Drop for Projection<'_> {
    fn drop(&mut self) {
        if self.begun.get()
            && let Err(error) =
                self.events.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]))
        {
            log::error!("ending a look-up: {error}");
        }
    }
}
