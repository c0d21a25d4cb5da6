//! Applies the log to `events.db`. This module is the listener's session: it claims messages in the order of
//! acceptance, and settles a batch with all its effects and the cursor in one transaction.
//!
//! The log row is the queue row: nothing is deleted or marked for each event, the cursor alone says what is done.
//! So a crash between claim and settle repeats the batch and one after settle doesn't, and a settle that is tried
//! again after an answer that was lost finds the cursor past its batch and changes nothing (law 1).
//!
//! # What this module never does
//!
//! * Claim past a claim that is not settled: the next claim always begins after the cursor.
//! * Trust its memory after a failed transaction: numbers given in it are forgotten with it.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::connection::classify;
use super::folder::Folder;
use super::idempotency;
use super::log::{LogReader, salvage};
use super::names::{Names, StreamNumbers};
use super::overlay::{Overlay, Taken};
use super::processes::{self, Kinds};
use super::streams::{Touched, signed};
use super::tables::{Numbers, Tables};
use super::wal::WalGauge;
use crate::component::Stop;
use crate::domain::apply::{self, Change, Item};
use crate::domain::dead_letter::DeadLetter;
use crate::domain::event::Accepted;
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::process::{Policy, State, mark};
use crate::domain::time::Timestamp;
use crate::store::{Claim, ListenerSession, Message, Result, StoreError};

/// The listener's session, and the engine of a rebuild.
pub(super) struct Session {
    folder: Arc<Folder>,
    connection: Connection,
    log: LogReader,
    /// None while nobody accepts: a rebuild reads the log alone.
    overlay: Option<Arc<Overlay>>,
    wal: Arc<WalGauge>,
    names: Names,
    streams: StreamNumbers,
    tables: Tables,
    /// Everything up to here is applied.
    position: i64,
}

/// Up to which place in the log everything is applied, as `connection` sees it.
pub(super) fn position(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT position FROM projection WHERE id = 1")?
        .query_row([], |row| row.get(0))
}

impl Session {
    pub(super) fn new(
        folder: Arc<Folder>,
        connection: Connection,
        log: LogReader,
        overlay: Option<Arc<Overlay>>,
        wal: Arc<WalGauge>,
        tables: Tables,
    ) -> Result<Self> {
        let position = position(&connection).map_err(|error| classify("open listener", error))?;
        Ok(Self {
            folder,
            connection,
            log,
            overlay,
            wal,
            names: Names::new(),
            streams: StreamNumbers::default(),
            tables,
            position,
        })
    }

    /// Up to which place in the log everything is applied.
    pub(super) fn position(&self) -> i64 {
        self.position
    }

    /// The connection, for a rebuild's checkpoints.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Ends a rebuild: everything is in the file itself, and nothing beside it.
    pub(super) fn close(self) -> Result<()> {
        let fail = |error| classify("close the projection", error);
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(fail)?;
        self.connection.close().map_err(|(_, error)| fail(error))
    }

    /// Applies what the log holds after the cursor, `max` messages at most, and returns how many there were.
    pub(super) fn replay(&mut self, max: usize, policy: &Policy, now: Timestamp) -> Result<usize> {
        let messages = self.log.read_after(self.position, max)?;
        let count = messages.len();
        if count == 0 {
            return Ok(0);
        }
        let items: Vec<Item<'_>> = messages.iter().map(Message::item).collect();
        let touched = apply::touched(&items);
        let loaded = touched.iter().cloned().zip(self.load(&touched)?);
        let loaded = loaded.filter_map(|(process, state)| Some((process, state?))).collect();
        let change = apply::decide(&items, loaded, policy, now, &State::merge);
        drop(items);
        self.settle(Claim { messages, drained: false }, change, now)?;
        Ok(count)
    }

    /// Messages after the cursor, and whether there was nothing more. Fewer than asked for is no proof of that: the
    /// overlay ends at a message that cannot be read, and the log gives only so many bytes at a time.
    fn read(&mut self, max: usize) -> Result<(Vec<Message>, bool)> {
        let Some(overlay) = &self.overlay else {
            return Ok((self.log.read_after(self.position, max)?, false));
        };
        match overlay.take(self.position, max) {
            Taken::Empty => Ok((Vec::new(), true)),
            Taken::Events(events) => {
                let last = events.last().map_or(self.position, |event| event.position);
                // What follows at once came after the claim began; what lies only in the log was there before.
                let drained = events.len() < max && !matches!(overlay.take(last, 1), Taken::Gap);
                Ok((events.into_iter().map(Message::Event).collect(), drained))
            }
            Taken::Gap => {
                let messages = self.log.read_after(self.position, max)?;
                let last = messages.last().map_or(self.position, Message::position);
                let drained = matches!(overlay.take(last, 1), Taken::Empty);
                Ok((messages, drained))
            }
        }
    }

    /// Writes everything that a claim changes. Returns with nothing written when it was applied before.
    fn write(&mut self, claim: &Claim, change: &Change, last: i64, now: Timestamp) -> Result<()> {
        let fail = |error| classify("settle", error);
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(fail)?;
        let stored = position(&transaction).map_err(fail)?;
        if stored >= last {
            return Ok(());
        }
        if claim.messages.first().is_some_and(|first| first.position() <= stored) {
            return Err(StoreError::Corrupt {
                what: format!(
                    "events.db is at position {stored}, within a batch: two listeners write to it"
                ),
            });
        }
        let accepted: Vec<Arc<Accepted>> = claim
            .messages
            .iter()
            .filter_map(|message| match message {
                Message::Event(accepted) => Some(Arc::clone(accepted)),
                // What can be read of it keeps its number taken and a repeat known; it is not applied.
                Message::Undecodable { position, bytes, .. } => {
                    salvage(*position, bytes).map(Arc::new)
                }
            })
            .collect();
        idempotency::record(&transaction, &accepted)?;
        write_batch(
            &transaction,
            &mut self.names,
            &mut self.streams,
            &mut self.tables,
            &accepted,
            change,
            now,
        )
        .map_err(fail)?;
        transaction
            .prepare_cached("UPDATE projection SET position = ?1 WHERE id = 1")
            .and_then(|mut update| update.execute([last]))
            .map_err(fail)?;
        transaction.commit().map_err(fail)
    }
}

/// Writes events, streams, processes and dead letters of a batch.
fn write_batch(
    connection: &Connection,
    names: &mut Names,
    streams: &mut StreamNumbers,
    tables: &mut Tables,
    accepted: &[Arc<Accepted>],
    change: &Change,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let mut touched = Touched::default();
    let mut applied = change.events.iter().peekable();
    if let Some(first) = applied.peek() {
        tables.open(connection, first.received_at)?;
    }
    // In the order of acceptance, so that numbers come out the same however the log is cut into batches.
    for accepted in accepted {
        let envelope = &accepted.envelope;
        let tenant = names.tenant(connection, envelope.tenant.as_str())?;
        let event_type = names.event_type(connection, envelope.event_type.as_str())?;
        let stream = touched.note(connection, streams, accepted, tenant, event_type)?;
        if applied.next_if(|event| event.position == accepted.position).is_some() {
            let source = names.source(connection, envelope.source.as_str())?;
            let numbers = Numbers { tenant, source, event_type, stream };
            tables.insert(connection, accepted, numbers, now)?;
            if mark::is_process_type(envelope.event_type.as_str()) {
                touched.drive(stream, accepted.position);
            }
        }
    }
    assert!(applied.next().is_none(), "a batch applies events that it did not claim");
    tables.close(connection)?;
    touched.write(connection)?;
    let mut kinds = Kinds::new();
    for process in &change.processes {
        let tenant = names.tenant(connection, process.row.tenant.as_str())?;
        let key = process.row.process.stream();
        let stream =
            streams.find(connection, tenant, &key)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let position = touched.driven_to(stream).ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        processes::write(connection, tenant, stream, position, process, &mut kinds)?;
    }
    processes::write_history(connection, &kinds)?;
    for letter in &change.dead_letters {
        let found = accepted.binary_search_by_key(&letter.id, |event| event.position);
        let event = found.ok().map(|index| &*accepted[index]);
        write_dead_letter(connection, names, streams, letter, event)?;
    }
    Ok(())
}

/// Writes a dead letter. `event` is what is known of it: also of one that cannot be read, which belongs to nobody, the
/// place in its stream is noted, so that readers can tell its number from a hole.
fn write_dead_letter(
    connection: &Connection,
    names: &mut Names,
    streams: &mut StreamNumbers,
    letter: &DeadLetter,
    event: Option<&Accepted>,
) -> rusqlite::Result<()> {
    let stream = match event {
        Some(event) => {
            let tenant = names.tenant(connection, event.envelope.tenant.as_str())?;
            streams.find(connection, tenant, &event.envelope.stream)?
        }
        None => None,
    };
    let stream_seq = event.map(|event| event.stream_seq).or(letter.stream_seq);
    connection
        .prepare_cached(
            "INSERT INTO tombstone (position, tenant, reason, detail, snapshot, event_id, source, stream_key, \
             stream_id, stream_seq, created_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            letter.id,
            letter.tenant,
            letter.reason.as_str(),
            letter.detail,
            letter.snapshot,
            letter.event_id,
            letter.source,
            letter.stream_key,
            stream,
            stream_seq.map(signed),
            letter.created_at.micros()
        ])?;
    Ok(())
}

impl ListenerSession for Session {
    fn claim(&mut self, max: usize, wait: Duration, stop: &Stop) -> Result<Claim> {
        let (mut messages, mut drained) = self.read(max)?;
        if messages.is_empty()
            && let Some(overlay) = &self.overlay
            && overlay.wait(self.position, wait, stop)
        {
            (messages, drained) = self.read(max)?;
        }
        Ok(Claim { messages, drained })
    }

    fn load(&mut self, processes: &[(TenantId, ProcessId)]) -> Result<Vec<Option<State>>> {
        let fail = |error| classify("load", error);
        let mut states = Vec::with_capacity(processes.len());
        let mut read = self
            .connection
            .prepare_cached("SELECT state FROM process WHERE stream_id = ?1")
            .map_err(fail)?;
        for (tenant, process) in processes {
            let tenant =
                self.names.known_tenant(&self.connection, tenant.as_str()).map_err(fail)?;
            let stream = match tenant {
                Some(tenant) => {
                    self.streams.find(&self.connection, tenant, &process.stream()).map_err(fail)?
                }
                None => None,
            };
            let Some(stream) = stream else {
                states.push(None);
                continue;
            };
            let state = read
                .query_row([stream], |row| row.get::<_, Vec<u8>>(0))
                .optional()
                .map_err(fail)?
                .map(|bytes| processes::state_of(&bytes))
                .transpose()?;
            states.push(state);
        }
        Ok(states)
    }

    fn settle(&mut self, claim: Claim, change: Change, now: Timestamp) -> Result<()> {
        let Some(last) = claim.messages.last().map(Message::position) else { return Ok(()) };
        if let Err(error) = self.write(&claim, &change, last, now) {
            self.names.forget();
            self.streams = StreamNumbers::default();
            self.tables.forget();
            if matches!(error, StoreError::Io { .. } | StoreError::Corrupt { .. }) {
                self.folder.taint();
            }
            return Err(error);
        }
        self.position = last;
        if let Some(overlay) = &self.overlay {
            overlay.projected(last);
        }
        // The batch is committed, so a checkpoint that fails is the keeper's to report.
        if let Err(error) = self.wal.restart_if_wanted(&self.connection) {
            log::warn!("the WAL of events.db could not start over: {error}");
        }
        Ok(())
    }
}
