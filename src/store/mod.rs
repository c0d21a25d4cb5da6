//! The store contract: what each role of session may do, in words of the domain. This module is the seam that
//! every backend implements, and `tests/it/store_contract/` is its specification.
//!
//! Calls are shaped by batches: read what a batch touches, decide in pure code, write the whole change. Every call
//! about data takes a [`TenantId`], except the sweeps, which say so (law 7). A session belongs to one thread, by
//! move, and reopens itself where its backend can lose it.

mod cursor;
pub mod doctor;
pub mod oracle;
pub mod sqlite;

use std::time::Duration;

use crate::domain::apply::{Change, Item};
use crate::domain::dead_letter::DeadLetter;
use crate::domain::event::{Accepted, Envelope, Verdict};
use crate::domain::ids::{EventId, EventType, ProcessId, Source, StreamKey, TenantId};
use crate::domain::log_row::{Level, LogRow};
use crate::domain::process::{Row, RunRow, State, Status};
use crate::domain::time::Timestamp;

/// Whatever the database driver said, kept whole for the log.
pub type Driver = Box<dyn std::error::Error + Send + Sync>;

/// Why a storage call failed, told apart by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Try again on this session: another writer held the rows too long.
    #[error("{call}: the database is busy")]
    Busy { call: &'static str, source: Driver },
    /// Answer 503 and try again later: the disk is full or the folder cannot be written. Nothing was written.
    #[error("{call}: the store takes no writes: {why}")]
    NoSpace { call: &'static str, why: &'static str, source: Driver },
    /// Try again: the session is gone and reopens at the next call.
    #[error("{call}: the session is gone")]
    Disconnected { call: &'static str, source: Driver },
    /// Stop, at a start: trying again does not help before somebody mends what the source says (exit 69).
    #[error("{call}: the database cannot be used")]
    Unreachable { call: &'static str, source: Driver },
    /// Claim again: the claim was lost with its session, and the queue has its messages again. Nothing was written.
    #[error("{call}: the claim went back to the queue")]
    Released { call: &'static str, source: Driver },
    /// Set this input aside: the schema refuses it, and always will.
    #[error("{call}: the schema refuses this row")]
    Refused { call: &'static str, source: Driver },
    /// Stop, and never retry on this handle: nobody knows what reached the disk (exit 74).
    #[error("{call}: input/output error on a commit")]
    Io { call: &'static str, source: Driver },
    /// Stop: the files are damaged, or another program or a bug of ours has written to them.
    #[error("{what}")]
    Corrupt { what: String },
    /// Try again, with pauses and a bounded number of times for one input: nobody knows what this error means, or whether
    /// it is the input's. What was under way was not written.
    #[error("{call} failed for a reason that is not known")]
    Unclear { call: &'static str, source: Driver },
    /// Stop: nothing we know how to handle.
    #[error("{call} failed")]
    Other { call: &'static str, source: Driver },
}

impl StoreError {
    /// The same call may succeed later without anybody's help from inside this program.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Busy { .. }
                | Self::NoSpace { .. }
                | Self::Disconnected { .. }
                | Self::Unclear { .. }
        )
    }
}

pub type Result<T> = std::result::Result<T, StoreError>;

/// A place in a listing, opaque to users: strictly after the row that it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// How much of a listing is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub limit: usize,
    pub after: Option<Cursor>,
}

/// One page of a listing. `next` is None on the last one. A page may end before its limit, so that neither large rows
/// nor a filter that little passes make it cost much.
#[derive(Debug, Clone, PartialEq)]
pub struct Paged<T> {
    pub rows: Vec<T>,
    pub next: Option<Cursor>,
}

/// Decides about posted envelopes and makes them durable (laws 1 and 5).
pub trait IntakeSession: Send {
    /// Decides each envelope of `batch` in order, writes the accepted ones in one commit, and returns one verdict
    /// each. When it returns Ok, everything accepted is durable and visible to [`Reader::status`].
    ///
    /// [`Verdict::Unavailable`] is the verdict on everything new in the batch or on nothing, and
    /// [`Verdict::HeldBack`] that on everything new of a tenant or on nothing of it: room is decided about once, before
    /// anything is accepted, so that no request is cut in the middle. Repeats get their answers all the same.
    ///
    /// # Errors
    /// On any error nothing of the batch was accepted. [`StoreError::Io`] must stop the service.
    fn accept(&mut self, now: Timestamp, batch: Vec<Envelope>) -> Result<Vec<Verdict>>;
}

/// One message of the durable queue, as it comes out.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    Event(std::sync::Arc<Accepted>),
    /// It cannot be read: a dead letter, whole (law 6).
    Undecodable {
        position: i64,
        bytes: Vec<u8>,
        problem: String,
    },
}

impl Message {
    /// Its place in the log.
    pub fn position(&self) -> i64 {
        match self {
            Self::Event(event) => event.position,
            Self::Undecodable { position, .. } => *position,
        }
    }

    /// The message as the domain takes it.
    pub fn item(&self) -> Item<'_> {
        match self {
            Self::Event(event) => Item::Event(event),
            Self::Undecodable { position, bytes, problem } => {
                Item::Undecodable { position: *position, bytes, problem }
            }
        }
    }
}

/// Messages that are being worked on. Settled once, by move.
#[derive(Debug)]
pub struct Claim {
    pub messages: Vec<Message>,
    /// Fewer messages were there than asked for: whoever was silent before the claim began is silent (law 4).
    pub drained: bool,
}

/// Applies what intake accepted (laws 2, 3 and 6): claim, load, decide in pure code, settle.
pub trait ListenerSession: Send {
    /// Takes up to `max` messages in the order of acceptance. Waits up to `wait` for the first one, and returns
    /// early (an empty claim) when `stop` closes.
    fn claim(&mut self, max: usize, wait: Duration, stop: &crate::component::Stop)
    -> Result<Claim>;
    /// The states of the processes that a batch touches, in the order asked.
    fn load(&mut self, processes: &[(TenantId, ProcessId)]) -> Result<Vec<Option<State>>>;
    /// Writes the whole change and takes the claim off the queue, in one transaction.
    fn settle(&mut self, claim: Claim, change: Change, now: Timestamp) -> Result<()>;
    /// Gives back what is claimed and not settled: the next claim begins anew.
    fn give_back(&mut self) {}
}

/// Writes log rows in bulk [BL2].
pub trait LogSession: Send {
    /// Inserts all rows in one transaction. On an error none is inserted, and the caller keeps them.
    fn write(&mut self, rows: &[LogRow]) -> Result<()>;
    /// Every row of the last [`LogSession::write`] has a `log_id` above this one. None: this store cannot tell.
    fn written_above(&self) -> Option<i64> {
        None
    }
}

/// A process that has been silent past its deadline or whose session is gone, as far as the store has applied events.
#[derive(Debug, Clone, PartialEq)]
pub struct Overdue {
    pub tenant: TenantId,
    pub process: ProcessId,
    pub state: State,
    /// The newest log row about it, by receipt: a sign of life too.
    pub last_log_at: Option<Timestamp>,
}

/// Housekeeping for all tenants: the named sweeps of law 7.
pub trait KeeperSession: Send {
    /// Processes of all tenants whose deadline lies at or before `until`, the longest overdue first, `limit` at most.
    fn overdue(&mut self, until: Timestamp, limit: usize) -> Result<Vec<Overdue>>;
    /// Processes of all tenants that a session of the database started which is gone since before `until`, and of which
    /// nothing waits in the queue that it can have said; `limit` at most. Everything received before `until` has been
    /// applied. None where the store knows of no sessions.
    fn deserted(&mut self, _until: Timestamp, _limit: usize) -> Result<Vec<Overdue>> {
        Ok(Vec::new())
    }
    /// Forgets which session started a process: who goes on with it from now on is another one.
    fn forget_session(&mut self, _tenant: &TenantId, _process: &ProcessId) -> Result<()> {
        Ok(())
    }
    /// Moves the deadline of a process whose logs prove that it lives.
    fn put_off(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        deadline: Timestamp,
    ) -> Result<()>;
    /// Marks finished processes whose last sign is older than `before` ARCHIVED and drops their events, runs and
    /// logs, a bounded portion at a time. Returns how many rows it touched; zero means done.
    fn archive(&mut self, before: Timestamp, limit: usize) -> Result<usize>;
    /// How many processes are in each status, over all tenants: for the gauges.
    fn count_processes(&mut self) -> Result<Vec<(Status, u64)>>;
    /// Storage upkeep that must not happen on an acknowledging thread: checkpoints, trims, snapshots, space.
    fn upkeep(&mut self, now: Timestamp) -> Result<Upkeep>;
}

/// What became visible to readers since the last look, whichever instance wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fresh {
    /// Events of these streams and lines of these processes. One may be named that has nothing new, none is left out.
    Of { streams: Vec<(TenantId, StreamKey)>, logs: Vec<(TenantId, ProcessId)> },
    /// More than is looked at one by one, or nobody knows: whoever waits had better look.
    Anything,
}

/// Tells what other instances have committed, for those of this one who wait for it. One statement serves them all.
pub trait TailSession: Send {
    /// What became visible since the last call. The first call, and the first after [`TailSession::rest`], begins
    /// here and says [`Fresh::Anything`].
    ///
    /// # Errors
    /// After an error the next call goes on where the last good one ended.
    fn look(&mut self) -> Result<Fresh>;
    /// Nobody waits any more: forgets how far it had looked.
    fn rest(&mut self);
}

/// What a round of upkeep found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Free bytes on the store's file system. The most there can be: the store cannot tell.
    pub free_bytes: u64,
    pub checkpointed_pages: u64,
    pub trimmed_rows: u64,
    /// The log position that the newest checked snapshot covers.
    pub snapshot_position: Option<i64>,
}

/// Which processes a listing shows. An empty `statuses` means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessFilter {
    pub statuses: Vec<Status>,
    pub process_type: Option<String>,
    pub name: Option<String>,
}

/// Which events a listing shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    pub source: Option<Source>,
    pub event_type: Option<EventType>,
    pub stream: Option<StreamKey>,
}

/// Which log rows a listing shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// This level and the more severe ones.
    pub level: Option<Level>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    /// Rows received after the one with this `log_id`.
    pub log_id_above: Option<i64>,
    /// Rows received up to the one with this `log_id`.
    pub log_id_max: Option<i64>,
}

/// Which dead letters a listing shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    pub reason: Option<String>,
    pub source: Option<String>,
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

/// An event as it is kept, with the time its effect was committed.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    pub event: Accepted,
    pub processed_at: Timestamp,
}

/// A log row as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredLog {
    pub log_id: i64,
    pub ingested_at: Timestamp,
    pub row: LogRow,
}

/// Log rows in the order of receipt.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    pub rows: Vec<StoredLog>,
    /// Every row up to this `log_id` that passes the filter is in `rows` or before them.
    pub through: i64,
    /// There may be more behind `through`.
    pub more: bool,
}

/// What is known of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamState {
    /// The highest number that is applied. Where several listeners apply at once, an earlier one may follow.
    pub applied_seq: u64,
    pub last_seen_at: Timestamp,
    pub last_type: EventType,
}

/// A process as `/status` shows it: the stored state merged with everything acknowledged since.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessView {
    pub row: Row,
    /// The median run time of past successes of the same kind of process, from three on [PM8].
    pub median_ms: Option<u64>,
    /// Rises with every change: the `ETag`.
    pub version: u64,
}

/// What an answer about a process hangs on. While it is the same, so is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Rises with every accepted event of the process, before its acknowledgement.
    pub accepted: u64,
    /// Rises with every transaction that may have changed what is stored of any process.
    pub commits: u64,
}

/// Answers questions. A poll loop keeps one read snapshot for a turn; [`Reader::end_turn`] gives it up.
pub trait Reader: Send {
    fn status(&mut self, tenant: &TenantId, process: &ProcessId) -> Result<Option<ProcessView>>;
    /// What the answer of [`Reader::status`] hangs on right now; ask for it first, then for the answer. None: this
    /// store cannot tell, and every question must be asked. A text that names no process has a stamp, too.
    fn status_stamp(&self, _tenant: &TenantId, _process: &str) -> Option<Stamp> {
        None
    }
    /// Whether [`Reader::status`] shows every acknowledged event at once. Else it shows those that are applied, up to
    /// [`StreamState::applied_seq`].
    fn shows_acknowledged(&self) -> bool;
    fn processes(
        &mut self,
        tenant: &TenantId,
        filter: &ProcessFilter,
        page: &Page,
    ) -> Result<Paged<ProcessView>>;
    /// The runs of a process, newest first. None: no such process.
    fn runs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        page: &Page,
    ) -> Result<Option<Paged<RunRow>>>;
    fn event(&mut self, tenant: &TenantId, id: &EventId) -> Result<Option<StoredEvent>>;
    /// Events of a tenant, the newest first by the time that orders them; of one stream, by their numbers.
    fn events(
        &mut self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: &Page,
    ) -> Result<Paged<StoredEvent>>;
    fn stream(&mut self, tenant: &TenantId, stream: &StreamKey) -> Result<Option<StreamState>>;
    /// Events after number `after`, ascending and without a gap, fewer than `limit` where they are large. None: no
    /// such stream.
    fn stream_events(
        &mut self,
        tenant: &TenantId,
        stream: &StreamKey,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<StoredEvent>>>;
    /// Rows of a process, oldest first. None: neither the process nor any log of it is known.
    fn logs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        filter: &LogFilter,
        page: &Page,
    ) -> Result<Option<Paged<StoredLog>>>;
    /// The place right after `row` in the order of [`Reader::logs`].
    fn log_cursor(&self, row: &StoredLog) -> Cursor;
    /// The highest `log_id` of this snapshot, of whatever tenant. A row that becomes visible later has a higher one.
    fn newest_log_id(&mut self) -> Result<i64>;
    /// Beyond this `log_id` no instance can have shown a row by now. More than [`Reader::newest_log_id`] where another
    /// instance may know sooner than this one that everything up to a row is committed.
    fn highest_log_id(&mut self) -> Result<i64> {
        self.newest_log_id()
    }
    /// Rows of a process in the order of receipt, from the one after `filter.log_id_above` on: what is new since then.
    /// Its cost grows with what all processes have said since then. A process that is not known has no rows.
    fn new_logs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        filter: &LogFilter,
        limit: usize,
    ) -> Result<Received>;
    fn dead_letters(
        &mut self,
        tenant: &TenantId,
        filter: &DeadLetterFilter,
        page: &Page,
    ) -> Result<Paged<DeadLetter>>;
    fn dead_letter(&mut self, tenant: &TenantId, id: i64) -> Result<Option<DeadLetter>>;
    /// A cheap question, to see that the store answers.
    fn ping(&mut self) -> Result<()>;
    /// Gives up the snapshot, so that the next question sees everything committed by then.
    fn end_turn(&mut self) {}
}

/// Whether the store takes writes now, and if not, why. Read by the doors and by `/ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteState {
    Open,
    /// Space runs low: log rows are shed and counted, events still go in.
    SheddingLogs(&'static str),
    /// Nothing goes in: 503.
    Closed(&'static str),
}

/// A backend: opens sessions for the threads. `service.rs` holds the only one.
pub trait Store: Send + Sync {
    fn intake(&self) -> Result<Box<dyn IntakeSession>>;
    fn listener(&self) -> Result<Box<dyn ListenerSession>>;
    fn logs(&self) -> Result<Box<dyn LogSession>>;
    fn keeper(&self) -> Result<Box<dyn KeeperSession>>;
    fn reader(&self) -> Result<Box<dyn Reader>>;
    /// Looks for what is new in all instances. None: there is one instance, which hears itself.
    fn tail(&self) -> Result<Option<Box<dyn TailSession>>> {
        Ok(None)
    }
    /// The store's clock (law 4).
    fn now(&self) -> Timestamp;
    fn write_state(&self) -> WriteState;
    /// Accepted and not yet applied: how many, and when the oldest of them was received.
    fn backlog(&self) -> (u64, Option<Timestamp>);
    /// Whether a question is answered from memory and local files, within about 100 microseconds. If not, no poll
    /// loop asks one: every read goes to a worker.
    fn answers_at_once(&self) -> bool {
        true
    }
    /// Sessions that were lost and opened again since the start. Renewing an old one is none of these.
    fn reconnects(&self) -> u64 {
        0
    }
    /// What `/ready` says of this store beside that it reads and writes.
    fn condition(&self) -> Vec<Condition> {
        Vec::new()
    }
    /// Leaves everything in order, once every session is closed.
    fn rest(&self) -> Result<()> {
        Ok(())
    }
}

/// One line of `/ready` about a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub name: String,
    pub fine: bool,
    /// Without it this instance cannot do its work.
    pub vital: bool,
    pub detail: String,
}
