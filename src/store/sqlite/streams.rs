//! What is known of each stream. This module moves a stream forward by a batch: number, time, type and place of its
//! newest message. A dead letter moves it too, so that its number stays taken (law 5).

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::names::StreamNumbers;
use crate::domain::event::Accepted;

/// A stream after the part of a batch that was seen so far.
struct Moved {
    number: i64,
    applied_seq: u64,
    last_seen_us: i64,
    type_id: i64,
    position: i64,
    /// The newest event of the batch that was applied to the process of this stream.
    driven_to: Option<i64>,
    /// Its row was written with these values in this batch.
    is_written: bool,
}

/// The streams that a batch touches.
#[derive(Default)]
pub(super) struct Touched(HashMap<i64, Moved>);

impl Touched {
    /// Notes that `accepted` belongs to its stream, and returns the stream's number.
    pub(super) fn note(
        &mut self,
        connection: &Connection,
        numbers: &mut StreamNumbers,
        accepted: &Accepted,
        tenant: i64,
        type_id: i64,
    ) -> rusqlite::Result<i64> {
        let key = &accepted.envelope.stream;
        let seen = accepted.received_at.micros();
        let found = numbers.find(connection, tenant, key)?;
        let number = match found {
            Some(number) => number,
            None => {
                connection
                    .prepare_cached(
                        "INSERT INTO stream (tenant_id, stream_key, applied_seq, last_seen_us, last_type_id, \
                         last_position) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    )?
                    .execute(params![
                        tenant,
                        key.as_str(),
                        signed(accepted.stream_seq),
                        seen,
                        type_id,
                        accepted.position
                    ])?;
                let number = connection.last_insert_rowid();
                numbers.remember(tenant, key, number);
                number
            }
        };
        let moved = self.0.entry(number).or_insert(Moved {
            number,
            applied_seq: 0,
            last_seen_us: seen,
            type_id,
            position: accepted.position,
            driven_to: None,
            is_written: false,
        });
        moved.applied_seq = moved.applied_seq.max(accepted.stream_seq);
        moved.last_seen_us = seen;
        moved.type_id = type_id;
        moved.position = accepted.position;
        moved.is_written = found.is_none();
        Ok(number)
    }

    /// Notes that the event at `position` was applied to the process of its stream.
    pub(super) fn drive(&mut self, number: i64, position: i64) {
        if let Some(moved) = self.0.get_mut(&number) {
            moved.driven_to = Some(position);
        }
    }

    /// The place of the newest event of a batch that was applied to the process of a stream. It makes the version, so
    /// it passes over domain events and dead letters of the same stream: they change no process, and whether they
    /// lie in the same batch is chance.
    pub(super) fn driven_to(&self, number: i64) -> Option<i64> {
        self.0.get(&number).and_then(|moved| moved.driven_to)
    }

    /// Writes every stream that moved, in the order of its number (law 11).
    pub(super) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let mut moved: Vec<&Moved> = self.0.values().filter(|moved| !moved.is_written).collect();
        moved.sort_unstable_by_key(|moved| moved.number);
        let mut update = connection.prepare_cached(
            "UPDATE stream SET applied_seq = max(applied_seq, ?2), last_seen_us = ?3, last_type_id = ?4, \
             last_position = ?5 WHERE stream_id = ?1",
        )?;
        for moved in moved {
            update.execute(params![
                moved.number,
                signed(moved.applied_seq),
                moved.last_seen_us,
                moved.type_id,
                moved.position
            ])?;
        }
        Ok(())
    }
}

/// A stream's number as `SQLite` keeps it. It counts from 1 by ones, so it never comes near the limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The way back. `SQLite` holds nothing negative here unless somebody else wrote it.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
