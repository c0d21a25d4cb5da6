//! Housekeeping of the embedded store. This module finds overdue processes, archives what is past retention, and
//! does what must never happen on an acknowledging thread: checkpoints, trims, snapshots.
//!
//! What must stay true: a row of the log goes only when it is older than asked for and a checked snapshot of
//! `events.db` covers it; an event or a line of an open run stays, whatever its age; and every write here is a short
//! transaction, because the listener waits for it.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::connection::{classify, open_writer};
use super::folder::{Folder, Space};
use super::log::{LogReader, probe, trim};
use super::names::unreadable;
use super::overlay::Overlay;
use super::processes::state_of;
use super::streams::unsigned;
use super::tables::{self, KEPT};
use super::wal::{WalGauge, checkpoint_nearly_all};
use super::{Settings, idempotency, logs, projection, snapshot};
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::process::Status;
use crate::domain::time::Timestamp;
use crate::store::{KeeperSession, Message, Overdue, Result, StoreError, Upkeep};

/// Rows of the log that one transaction trims: a few milliseconds, while intake waits for the lock.
const TRIM_ROWS: usize = 2_000;
/// Such transactions in one round: four rounds a second outrun any ingest there is.
const TRIM_PORTIONS: usize = 50;
/// How long between two looks at what is old: trims, identities, snapshots.
const SLOW_PAUSE: std::time::Duration = std::time::Duration::from_secs(60);
/// Too early a look at a process costs one update; so many of them in one call at most.
const SWEEPS_MAX: usize = 10_000;

/// Streams of an event table that are looked at in one call, to find those with an open run: some 200 ms of reading,
/// which nobody waits for. With fewer, retention could not keep up where every event has a stream of its own.
const STREAMS_LOOKED_AT: usize = 50_000;

/// The keeper's session.
pub(super) struct Session {
    folder: Arc<Folder>,
    space: Arc<Space>,
    overlay: Arc<Overlay>,
    settings: Settings,
    events: Connection,
    log: Connection,
    log_reader: LogReader,
    logs: Connection,
    logs_reader: logs::Reader,
    events_wal: Arc<WalGauge>,
    log_wal: Arc<WalGauge>,
    looked_at: Option<Timestamp>,
    /// The event table that is being dropped, and the stream up to which open runs were carried out of it.
    carried: Option<(i64, i64)>,
    /// The same table, and the stream up to which was let go what had been kept of those that go with it.
    released: Option<(i64, i64)>,
    log_retention: logs::Retention,
}

impl Session {
    pub(super) fn open(
        folder: Arc<Folder>,
        space: Arc<Space>,
        overlay: Arc<Overlay>,
        settings: Settings,
        events_wal: Arc<WalGauge>,
        log_wal: Arc<WalGauge>,
    ) -> Result<Self> {
        Ok(Self {
            events: open_writer(&folder.events_db(), false)?,
            log: open_writer(&folder.log_db(), true)?,
            log_reader: LogReader::open(&folder)?,
            logs: open_writer(&folder.logs_db(), false)?,
            logs_reader: logs::Reader::open(folder.path())?,
            folder,
            space,
            overlay,
            settings,
            events_wal,
            log_wal,
            looked_at: None,
            carried: None,
            released: None,
            log_retention: logs::Retention::default(),
        })
    }

    /// One transaction on `events.db`.
    fn write<T>(
        &mut self,
        call: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let run = || {
            let transaction =
                self.events.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        let done = run();
        // Answers that were given before may be out of date now.
        self.overlay.committed();
        done.map_err(|error| classify(call, error))
    }

    /// One round of upkeep.
    fn look_after(&mut self, now: Timestamp) -> Result<Upkeep> {
        let free_bytes = self.folder.free_bytes()?;
        self.space.observe(free_bytes, self.settings.min_free_bytes);
        // Behind closed doors no work reaches intake, so nobody else would find out that writes go through again.
        if self.space.is_refused() && probe(&self.log).is_ok() {
            self.space.reopen();
        }
        let (_, pages, events) = checkpoint_nearly_all(&self.events)?;
        self.events_wal.observe(pages, events);
        let (_, pages, log) = checkpoint_nearly_all(&self.log)?;
        self.log_wal.observe(pages, log);
        let logs = logs::checkpoint(&self.logs)?;
        let mut trimmed_rows = 0;
        // A clock that was set back must not put it off.
        let due = |looked_at| now < looked_at || now.since(looked_at) >= SLOW_PAUSE;
        if self.looked_at.is_none_or(due) {
            self.looked_at = Some(now);
            idempotency::drop_older_than(&self.events, now.minus(self.settings.idempotency))?;
            trimmed_rows = self.trim(now)?;
        }
        Ok(Upkeep {
            free_bytes,
            checkpointed_pages: events + log + logs,
            trimmed_rows,
            snapshot_position: snapshot::newest_position(&self.folder)?,
        })
    }

    /// Trims the log, and takes a snapshot first where a new one is due.
    fn trim(&mut self, now: Timestamp) -> Result<u64> {
        let Some(first) = self.log_reader.first_position()? else { return Ok(0) };
        let applied =
            projection::position(&self.events).map_err(|error| classify("trim", error))?;
        let keep = self.settings.log_keep;
        let old = self.last_before(first, applied, now.minus(keep))?;
        let mut covered = snapshot::newest_position(&self.folder)?.unwrap_or(0);
        // A snapshot copies the whole file, so it waits until what it frees has grown to a quarter of what stays.
        if self.last_before(first.max(covered + 1), applied, now.minus(keep + keep / 4))? > covered
        {
            if snapshot::has_room(&self.folder, self.settings.min_free_bytes)? {
                covered = snapshot::take(&self.folder, &self.events)?;
            } else {
                log::warn!("no room for a snapshot of events.db: the log is kept until there is");
            }
        }
        let mut trimmed = 0;
        for _ in 0..TRIM_PORTIONS {
            let portion = trim(&self.log, old.min(covered), TRIM_ROWS)?;
            trimmed += portion;
            if portion == 0 {
                break;
            }
        }
        Ok(trimmed)
    }

    /// The last position from `first` to `last` whose event was received before `moment`; `first - 1` if none was.
    /// Receipts rise with positions.
    fn last_before(&mut self, first: i64, last: i64, moment: Timestamp) -> Result<i64> {
        let (mut low, mut high) = (first - 1, last.max(first - 1));
        while low < high {
            let middle = low + (high - low + 1) / 2;
            let is_before = match self.log_reader.read_after(middle - 1, 1)?.first() {
                Some(Message::Event(event)) => event.received_at < moment,
                // It says nothing about its time; its neighbours do.
                Some(Message::Undecodable { .. }) => true,
                None => false,
            };
            if is_before {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }

    /// Works on the oldest event table if everything in it is past retention: a portion of the events of open runs is
    /// carried away, or, when there are none left, the table is dropped. The newest one stays: it takes rows.
    fn drop_events(&mut self, before: Timestamp, limit: usize) -> Result<usize> {
        const CALL: &str = "drop events";
        let fail = |error| classify(CALL, error);
        let spans = tables::spans(&self.events).map_err(fail)?;
        let mut rolled = spans.into_iter().filter(|span| span.n != KEPT);
        let (Some(oldest), Some(_newer)) = (rolled.next(), rolled.next()) else { return Ok(0) };
        if oldest.last_received_us >= before.micros() {
            return Ok(0);
        }
        let after = match self.carried {
            Some((n, stream)) if n == oldest.n => stream,
            Some(_) | None => i64::MIN,
        };
        // Looked for beside the listener; only what is found is moved in its way.
        let looked =
            tables::look_for_open_runs(&self.events, oldest.n, after, STREAMS_LOOKED_AT, limit)
                .map_err(fail)?;
        if looked.found.is_empty() {
            self.carried = Some((oldest.n, looked.to));
            if !looked.is_all {
                return Ok(1);
            }
            let released = self.release_before(oldest.n, limit)?;
            if released > 0 {
                return Ok(released);
            }
            (self.carried, self.released) = (None, None);
            let rows = self.write(CALL, |transaction| tables::drop_table(transaction, &oldest))?;
            return Ok(count(rows).max(1));
        }
        let (moved, to) = self.write(CALL, |transaction| {
            let (mut moved, mut to) = (0, after);
            for stream in &looked.found {
                moved += tables::carry(transaction, oldest.n, *stream, limit - moved)?;
                if moved == limit {
                    // There may be more of this stream, so it is looked at again.
                    return Ok((moved, to));
                }
                to = *stream;
            }
            Ok((moved, looked.to))
        })?;
        self.carried = Some((oldest.n, to));
        Ok(moved)
    }

    /// Lets go a portion of what was kept of streams that have events in table `n` still, which is about to be dropped
    /// with them. Zero: there are none any more.
    fn release_before(&mut self, n: i64, limit: usize) -> Result<usize> {
        const CALL: &str = "release events";
        let after = match self.released {
            Some((table, stream)) if table == n => stream,
            Some(_) | None => i64::MIN,
        };
        let looked = tables::look_for_kept(&self.events, n, after, STREAMS_LOOKED_AT, limit)
            .map_err(|error| classify(CALL, error))?;
        if looked.found.is_empty() {
            self.released = Some((n, looked.to));
            return Ok(usize::from(!looked.is_all));
        }
        let (released, to) = self.write(CALL, |transaction| {
            let (mut released, mut to) = (0, after);
            for stream in &looked.found {
                released += tables::release(transaction, *stream, limit - released)?;
                if released == limit {
                    return Ok((released, to));
                }
                to = *stream;
            }
            Ok((released, looked.to))
        })?;
        self.released = Some((n, to));
        Ok(released)
    }

    fn archive_processes(&mut self, before: Timestamp, limit: i64) -> Result<usize> {
        self.write("archive", |transaction| {
            let over = transaction
                .prepare_cached(
                    "SELECT stream_id FROM process WHERE status IN ('COMPLETED', 'FAILED', 'EXPIRED') \
                     AND last_update_us < ?1 ORDER BY last_update_us LIMIT ?2",
                )?
                .query_map(params![before.micros(), limit], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<i64>>>()?;
            let mut touched = 0;
            for stream in over {
                touched += archive_process(transaction, stream, limit)?;
                if touched >= count(limit) {
                    break;
                }
            }
            Ok(touched)
        })
    }

    fn drop_runs(&mut self, before: Timestamp, limit: i64) -> Result<usize> {
        self.write("drop runs", |transaction| {
            transaction
                .prepare_cached(
                    "DELETE FROM process_run WHERE run_no IN (SELECT run_no FROM process_run \
                     WHERE ended_us IS NOT NULL AND ended_us < ?1 ORDER BY ended_us LIMIT ?2)",
                )?
                .execute(params![before.micros(), limit])
        })
    }

    /// Drops dead letters past retention whose neighbours in the stream are gone too: a reader must not take a
    /// tombstone that is missing for a hole.
    fn drop_dead_letters(&mut self, before: Timestamp, limit: i64) -> Result<usize> {
        self.write("drop dead letters", |transaction| {
            transaction
                .prepare_cached(
                    "DELETE FROM tombstone WHERE position IN (SELECT position FROM tombstone d WHERE d.position < \
                     coalesce((SELECT min(first_position) FROM event_table WHERE n > 0), (SELECT position FROM projection)) \
                     AND d.created_us < ?1 \
                     AND NOT EXISTS (SELECT 1 FROM events_0 e WHERE e.stream_id = d.stream_id) \
                     ORDER BY d.position LIMIT ?2)",
                )?
                .execute(params![before.micros(), limit])
        })
    }

    /// What is due at or before `until`, the longest overdue first.
    ///
    /// A look that lies before its deadline is put right first, for it would come before others that are overdue for
    /// longer. Each costs one update, once for each deadline, so there are few of them in most sweeps.
    fn sweep(&mut self, until: Timestamp, limit: usize) -> rusqlite::Result<Vec<Due>> {
        let mut put_right = 0;
        loop {
            let (due, early) = self.looks(until, limit)?;
            if early.is_empty() || put_right >= SWEEPS_MAX {
                return Ok(due);
            }
            put_right += early.len();
            self.put_right(early)?;
        }
    }

    /// Looks at or before `until`, in their order: those that lie at their deadlines, `limit` at most, and the
    /// streams of those that come too early.
    fn looks(&mut self, until: Timestamp, limit: usize) -> rusqlite::Result<(Vec<Due>, Vec<i64>)> {
        let (mut due, mut early) = (Vec::new(), Vec::new());
        let mut read = self.events.prepare_cached(LOOKS)?;
        let mut found = read.query([until.micros()])?;
        while due.len() < limit
            && early.len() < SWEEPS_MAX
            && let Some(row) = found.next()?
        {
            let (look, deadline): (i64, Option<i64>) = (row.get(1)?, row.get(2)?);
            if deadline.is_some_and(|deadline| deadline <= look) {
                let tenant = TenantId::parse(row.get_ref(3)?.as_str()?).map_err(unreadable)?;
                let process = ProcessId::parse(row.get_ref(4)?.as_str()?).map_err(unreadable)?;
                due.push((tenant, process, row.get(5)?));
            } else {
                early.push(row.get(0)?);
            }
        }
        Ok((due, early))
    }

    /// Moves the looks at these processes to their deadlines.
    fn put_right(&mut self, mut early: Vec<i64>) -> rusqlite::Result<()> {
        early.sort_unstable();
        let transaction = self.events.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for stream in early {
            // From the row, which may have moved on since it was read.
            transaction
                .prepare_cached("UPDATE process SET sweep_us = deadline_us WHERE stream_id = ?1")?
                .execute([stream])?;
        }
        transaction.commit()
    }
}

/// A process that is due, with its state as it is kept.
type Due = (TenantId, ProcessId, Vec<u8>);

/// Walks the index of looks as far as it is due.
const LOOKS: &str = "SELECT p.stream_id, p.sweep_us, p.deadline_us, t.name, p.process_id, p.state FROM process p \
     JOIN tenant t ON t.tenant_id = p.tenant_id \
     WHERE p.sweep_us IS NOT NULL AND p.sweep_us <= ?1 ORDER BY p.sweep_us";

/// Archives one process, or removes a portion of its kept events and leaves the rest for the next time.
fn archive_process(
    transaction: &Transaction<'_>,
    stream: i64,
    limit: i64,
) -> rusqlite::Result<usize> {
    let dropped = tables::release(transaction, stream, count(limit))?;
    if dropped >= count(limit) {
        return Ok(dropped);
    }
    let runs = transaction
        .prepare_cached("DELETE FROM process_run WHERE stream_id = ?1")?
        .execute([stream])?;
    transaction
        .prepare_cached(
            "UPDATE process SET status = 'ARCHIVED', sweep_us = NULL, deadline_us = NULL, version = version + 1 \
             WHERE stream_id = ?1",
        )?
        .execute([stream])?;
    Ok(dropped + runs + 1)
}

/// How a process stands, which decides about its old lines.
fn standing(events: &Connection, tenant: &str, process: &str) -> rusqlite::Result<logs::Standing> {
    let status = events
        .prepare_cached(
            "SELECT p.status FROM tenant t JOIN stream s ON s.tenant_id = t.tenant_id AND s.stream_key = ?2 \
             JOIN process p ON p.stream_id = s.stream_id WHERE t.name = ?1",
        )?
        .query_row([tenant, process], |row| Ok(Status::parse(row.get_ref(0)?.as_str()?)))
        .optional()?;
    let Some(status) = status else { return Ok(logs::Standing::Gone) };
    Ok(match status {
        // An expired run is open: a sign of life revives it, until it is archived. So is one of which nothing is known.
        Some(Status::Active | Status::Running | Status::Paused | Status::Expired) | None => {
            logs::Standing::Open
        }
        Some(Status::Completed | Status::Failed) => logs::Standing::Over,
        Some(Status::Registered | Status::Archived) => logs::Standing::Gone,
    })
}

fn count(rows: i64) -> usize {
    usize::try_from(rows).unwrap_or(0)
}

impl KeeperSession for Session {
    fn overdue(&mut self, until: Timestamp, limit: usize) -> Result<Vec<Overdue>> {
        let due = self.sweep(until, limit).map_err(|error| classify("find overdue", error))?;
        let mut overdue = Vec::with_capacity(due.len());
        for (tenant, process, state) in due {
            let last_log_at = self.logs_reader.newest(&tenant, &process)?;
            overdue.push(Overdue { state: state_of(&state)?, tenant, process, last_log_at });
        }
        self.logs_reader.end_turn();
        Ok(overdue)
    }

    fn put_off(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        deadline: Timestamp,
    ) -> Result<()> {
        self.write("put off", |transaction| {
            transaction
                .prepare_cached(
                    "UPDATE process SET deadline_us = ?3, sweep_us = ?3 WHERE deadline_us < ?3 AND stream_id = \
                     (SELECT s.stream_id FROM stream s JOIN tenant t ON t.tenant_id = s.tenant_id \
                     WHERE t.name = ?1 AND s.stream_key = ?2)",
                )?
                .execute(params![tenant.as_str(), process.as_str(), deadline.micros()])
                .map(|_| ())
        })
    }

    fn archive(&mut self, before: Timestamp, limit: usize) -> Result<usize> {
        let portion = i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
        let mut touched = self.archive_processes(before, portion)?;
        touched += self.drop_events(before, limit.max(1))?;
        touched += self.drop_runs(before, portion)?;
        touched += self.drop_dead_letters(before, portion)?;
        let Self { events, logs, log_retention, .. } = self;
        let standing = |tenant: &str, process: &str| standing(events, tenant, process);
        touched += log_retention.pass(logs, before, limit.max(1), standing)?;
        Ok(touched)
    }

    fn count_processes(&mut self) -> Result<Vec<(Status, u64)>> {
        let read = || -> rusqlite::Result<Vec<(Status, u64)>> {
            let mut counts = Status::ALL.map(|status| (status, 0));
            let mut read = self.events.prepare_cached(
                "SELECT status, count(*) FROM process GROUP BY tenant_id, status",
            )?;
            let mut found = read.query([])?;
            while let Some(row) = found.next()? {
                let status = Status::parse(row.get_ref(0)?.as_str()?);
                let rows = unsigned(row.get(1)?);
                if let Some((_, sum)) = counts.iter_mut().find(|(known, _)| Some(*known) == status)
                {
                    *sum += rows;
                }
            }
            Ok(counts.to_vec())
        };
        read().map_err(|error| classify("count processes", error))
    }

    fn upkeep(&mut self, now: Timestamp) -> Result<Upkeep> {
        let upkeep = self.look_after(now);
        if let Err(StoreError::Io { .. } | StoreError::Corrupt { .. }) = &upkeep {
            // The next start reads the files through, and rebuilds what it can.
            self.folder.taint();
        }
        upkeep
    }
}
