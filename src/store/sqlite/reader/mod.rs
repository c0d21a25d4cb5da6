//! Answers questions from `events.db`, `logs.db` and the overlay. This module is the read session of the embedded
//! store: one read transaction for a turn, given up by `end_turn`.
//!
//! # `/status` sees every acknowledged event
//!
//! Stored state and overlay are two things that change on their own. An event leaves the overlay after the commit
//! that projects it, so a snapshot that is older than that commit would miss it in both. So: the snapshot's cursor
//! is read first, then the overlay is asked, and if the overlay was trimmed beyond the snapshot's cursor, the
//! snapshot is given up and everything is asked again. Merging an event that the state holds already changes
//! nothing (law 2), so the overlap needs no care.
//!
//! Listings and streams follow the projection: they show what is applied, in one consistent snapshot.

mod cursor;
mod dead_letters;
mod events;
mod processes;

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::connection::classify;
use super::names::Texts;
use super::overlay::Overlay;
use super::tables::{self, Span};
use super::{logs, projection};
use crate::domain::dead_letter::DeadLetter;
use crate::domain::ids::{EventId, ProcessId, StreamKey, TenantId};
use crate::domain::process::{Policy, RunRow};
use crate::domain::time::Timestamp;
use crate::store::{
    self, DeadLetterFilter, EventFilter, LogFilter, Page, Paged, ProcessFilter, ProcessView,
    Received, Result, Stamp, StoredEvent, StoredLog, StreamState,
};

/// The read session.
pub(super) struct Reader {
    connection: Connection,
    logs: logs::Reader,
    overlay: Arc<Overlay>,
    policy: Policy,
    texts: Texts,
    turn: Option<Turn>,
}

/// What a read transaction showed first.
struct Turn {
    /// Everything up to here is in this snapshot.
    position: i64,
    /// These commits at least are in this snapshot.
    commits: u64,
    /// The event tables of this snapshot, read when first asked for.
    spans: Option<Arc<[Span]>>,
}

impl Reader {
    pub(super) fn new(
        connection: Connection,
        logs: logs::Reader,
        overlay: Arc<Overlay>,
        policy: Policy,
    ) -> Self {
        Self { connection, logs, overlay, policy, texts: Texts::default(), turn: None }
    }

    /// Begins the turn's snapshot, if it is not there, and returns its cursor.
    fn begin(&mut self) -> rusqlite::Result<i64> {
        if let Some(turn) = &self.turn {
            return Ok(turn.position);
        }
        // A transaction that an error left open would show an old snapshot for ever.
        if !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        let commits = self.overlay.commits();
        self.connection.prepare_cached("BEGIN")?.execute([])?;
        let position = projection::position(&self.connection)?;
        self.turn = Some(Turn { position, commits, spans: None });
        Ok(position)
    }

    /// The event tables of this snapshot, the oldest first.
    fn spans(&mut self) -> rusqlite::Result<Arc<[Span]>> {
        self.begin()?;
        let Some(turn) = &mut self.turn else { return Ok(Arc::from([])) };
        if turn.spans.is_none() {
            turn.spans = Some(tables::spans(&self.connection)?.into());
        }
        Ok(turn.spans.clone().unwrap_or_else(|| Arc::from([])))
    }

    fn give_up(&mut self) {
        if self.turn.take().is_some()
            && let Err(error) =
                self.connection.prepare_cached("COMMIT").and_then(|mut commit| commit.execute([]))
        {
            log::warn!("a read of events.db did not end well: {error}");
        }
    }

    /// The number of a tenant. None: nothing of it is applied.
    fn tenant(&mut self, tenant: &TenantId) -> rusqlite::Result<Option<i64>> {
        self.begin()?;
        self.connection
            .prepare_cached("SELECT tenant_id FROM tenant WHERE name = ?1")?
            .query_row([tenant.as_str()], |row| row.get(0))
            .optional()
    }

    /// The number of a stream. None: nothing of it is applied.
    fn stream_number(
        &mut self,
        tenant: &TenantId,
        stream: &StreamKey,
    ) -> rusqlite::Result<Option<i64>> {
        self.begin()?;
        self.connection
            .prepare_cached(
                "SELECT s.stream_id FROM stream s JOIN tenant t ON t.tenant_id = s.tenant_id \
                 WHERE t.name = ?1 AND s.stream_key = ?2",
            )?
            .query_row((tenant.as_str(), stream.as_str()), |row| row.get(0))
            .optional()
    }

    fn read_stream(
        &mut self,
        tenant: &TenantId,
        stream: &StreamKey,
    ) -> rusqlite::Result<Option<StreamState>> {
        self.begin()?;
        let found = self
            .connection
            .prepare_cached(
                "SELECT s.applied_seq, s.last_seen_us, s.last_type_id FROM stream s \
                 JOIN tenant t ON t.tenant_id = s.tenant_id WHERE t.name = ?1 AND s.stream_key = ?2",
            )?
            .query_row((tenant.as_str(), stream.as_str()), |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })
            .optional()?;
        let Some((applied, seen, event_type)) = found else { return Ok(None) };
        Ok(Some(StreamState {
            applied_seq: super::streams::unsigned(applied),
            last_seen_at: Timestamp::from_micros(seen),
            last_type: self.texts.event_type(&self.connection, event_type)?,
        }))
    }
}

impl store::Reader for Reader {
    fn status(&mut self, tenant: &TenantId, process: &ProcessId) -> Result<Option<ProcessView>> {
        self.read_status(tenant, process)
    }

    fn status_stamp(&self, tenant: &TenantId, process: &str) -> Option<Stamp> {
        // Within a turn answers are as old as its snapshot, and so is the stamp.
        let commits =
            self.turn.as_ref().map_or_else(|| self.overlay.commits(), |turn| turn.commits);
        Some(self.overlay.stamp(tenant, process, commits))
    }

    fn shows_acknowledged(&self) -> bool {
        true
    }

    fn processes(
        &mut self,
        tenant: &TenantId,
        filter: &ProcessFilter,
        page: &Page,
    ) -> Result<Paged<ProcessView>> {
        self.list_processes(tenant, filter, page)
    }

    fn runs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        page: &Page,
    ) -> Result<Option<Paged<RunRow>>> {
        self.list_runs(tenant, process, page)
    }

    fn event(&mut self, tenant: &TenantId, id: &EventId) -> Result<Option<StoredEvent>> {
        self.find_event(tenant, id).map_err(|error| classify("read event", error))
    }

    fn events(
        &mut self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: &Page,
    ) -> Result<Paged<StoredEvent>> {
        self.list_events(tenant, filter, page)
    }

    fn stream(&mut self, tenant: &TenantId, stream: &StreamKey) -> Result<Option<StreamState>> {
        self.read_stream(tenant, stream).map_err(|error| classify("read stream", error))
    }

    fn stream_events(
        &mut self,
        tenant: &TenantId,
        stream: &StreamKey,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<StoredEvent>>> {
        self.follow_stream(tenant, stream, after, limit)
            .map_err(|error| classify("read stream events", error))
    }

    fn logs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        filter: &LogFilter,
        page: &Page,
    ) -> Result<Option<Paged<StoredLog>>> {
        if let Some(rows) = self.logs.page(tenant, process, filter, page)? {
            return Ok(Some(rows));
        }
        let known = self.read_status(tenant, process)?.is_some();
        Ok(known.then(|| Paged { rows: Vec::new(), next: None }))
    }

    fn log_cursor(&self, row: &StoredLog) -> store::Cursor {
        logs::Cursor::after(row).into_store()
    }

    fn newest_log_id(&mut self) -> Result<i64> {
        self.logs.newest_log_id()
    }

    fn new_logs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        filter: &LogFilter,
        limit: usize,
    ) -> Result<Received> {
        self.logs.received(tenant, process, filter, limit)
    }

    fn dead_letters(
        &mut self,
        tenant: &TenantId,
        filter: &DeadLetterFilter,
        page: &Page,
    ) -> Result<Paged<DeadLetter>> {
        self.list_dead_letters(tenant, filter, page)
    }

    fn dead_letter(&mut self, tenant: &TenantId, id: i64) -> Result<Option<DeadLetter>> {
        self.find_dead_letter(tenant, id).map_err(|error| classify("read dead letter", error))
    }

    fn ping(&mut self) -> Result<()> {
        // In a transaction of its own: an answer from an old snapshot proves little.
        self.give_up();
        self.begin().map(|_| ()).map_err(|error| classify("ping", error))?;
        self.give_up();
        Ok(())
    }

    fn end_turn(&mut self) {
        self.give_up();
        self.logs.end_turn();
    }
}
