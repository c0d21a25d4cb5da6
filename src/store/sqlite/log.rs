//! The log of accepted events, `log.db`: what is in it is acknowledged or about to be. This module writes it, reads
//! it by position, and trims it.
//!
//! The row is the queue row: the projection keeps a cursor, and nothing here is ever updated. What must stay true:
//! positions rise by one from commit to commit and never repeat, also after a trim to empty; a batch is in the log
//! whole or not at all; and a file that is damaged is refused, never mended in silence.

use std::ops::Range;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::connection::{classify, open_reader, open_writer, quick_check};
use super::folder::Folder;
use crate::domain::event::{Accepted, Envelope, IdOrigin, PayloadHash, TraceContext};
use crate::domain::ids::{EventId, EventType, IdempotencyKey, Source, StreamKey, TenantId};
use crate::domain::time::Timestamp;
use crate::store::{Message, Result, StoreError};

/// Rows of one INSERT, the most first. Each statement also writes down the highest position, so a commit of twenty
/// rows had better be two statements than twenty; beyond 64 rows longer ones save nothing.
const ROWS_PER_INSERT: [usize; 4] = [64, 16, 4, 1];

/// Up to this size the file is looked at on every start; above it, only after an end out of order, because looking
/// takes some seconds for each GiB.
const CHECK_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Bytes of bodies that one read returns at most, however few events that is.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Opens every body, so that a later format can be told from this one.
const FORMAT: u8 = 1;

/// An event as it lies in the log: all of it but its position, which is the row's id.
#[derive(Serialize)]
struct Body<'e> {
    stream_seq: u64,
    received_at: Timestamp,
    ordered_at: Timestamp,
    clock_skew: bool,
    envelope: &'e Envelope,
}

/// [`Body`] on its way back.
#[derive(Deserialize)]
struct OwnedBody {
    stream_seq: u64,
    received_at: Timestamp,
    ordered_at: Timestamp,
    clock_skew: bool,
    envelope: Envelope,
}

/// Appends the bytes of an event to `bytes`, and gives them back.
fn encode_into(event: &Accepted, mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.push(FORMAT);
    let body = Body {
        stream_seq: event.stream_seq,
        received_at: event.received_at,
        ordered_at: event.ordered_at,
        clock_skew: event.clock_skew,
        envelope: &event.envelope,
    };
    postcard::to_extend(&body, bytes).expect("memory takes every event, whose shape postcard knows")
}

/// The event at `position`, from its bytes.
///
/// # Errors
/// What is wrong with the bytes, in words.
pub(super) fn decode(position: i64, bytes: &[u8]) -> std::result::Result<Accepted, String> {
    let rest = match bytes.split_first() {
        Some((&FORMAT, rest)) => rest,
        Some((format, _)) => return Err(format!("it has format {format}, which is not known")),
        None => return Err("it is empty".into()),
    };
    let (body, left) =
        postcard::take_from_bytes::<OwnedBody>(rest).map_err(|error| error.to_string())?;
    if !left.is_empty() {
        return Err(format!("{} bytes are left over", left.len()));
    }
    let OwnedBody { stream_seq, received_at, ordered_at, clock_skew, envelope } = body;
    Ok(Accepted { position, stream_seq, received_at, ordered_at, clock_skew, envelope })
}

/// [`OwnedBody`] whose payload may be anything: what comes before and after it is often whole where that is damaged.
#[derive(Deserialize)]
struct DamagedBody<'b> {
    stream_seq: u64,
    received_at: Timestamp,
    ordered_at: Timestamp,
    clock_skew: bool,
    // The members of `Envelope`, in its order.
    tenant: TenantId,
    event_id: EventId,
    id_origin: IdOrigin,
    source: Source,
    event_type: EventType,
    stream: StreamKey,
    occurred_at: Option<Timestamp>,
    schema_version: u32,
    #[serde(borrow)]
    _payload: &'b [u8],
    key: Option<IdempotencyKey>,
    hash: PayloadHash,
    trace: TraceContext,
}

/// What can be made out of the bytes at `position` that [`decode`] cannot read: the event without its payload. It has
/// its number and its identity, so that the number stays taken and a repeat is known, and it must never be applied.
/// None: not even that can be read.
pub(super) fn salvage(position: i64, bytes: &[u8]) -> Option<Accepted> {
    let (&FORMAT, rest) = bytes.split_first()? else { return None };
    // What is left over does not matter here: it may be what is wrong.
    let (body, _left) = postcard::take_from_bytes::<DamagedBody<'_>>(rest).ok()?;
    Some(Accepted {
        position,
        stream_seq: body.stream_seq,
        received_at: body.received_at,
        ordered_at: body.ordered_at,
        clock_skew: body.clock_skew,
        envelope: Envelope {
            tenant: body.tenant,
            event_id: body.event_id,
            id_origin: body.id_origin,
            source: body.source,
            event_type: body.event_type,
            stream: body.stream,
            occurred_at: body.occurred_at,
            schema_version: body.schema_version,
            payload: Box::default(),
            key: body.key,
            hash: body.hash,
            trace: body.trace,
        },
    })
}

/// The writing side of the log. One thread owns it.
pub(super) struct Log {
    connection: Connection,
    /// The highest position ever given.
    last: i64,
    /// The bodies of a batch, one behind the other; kept to save its memory.
    bodies: Vec<u8>,
    /// The statement for each of [`ROWS_PER_INSERT`].
    inserts: [(usize, String); ROWS_PER_INSERT.len()],
}

impl Log {
    /// Opens the log, makes it if it is not there, and looks whether it is whole.
    pub(super) fn open(folder: &Folder) -> Result<Self> {
        let path = folder.log_db();
        let connection = open_writer(&path, true).map_err(|error| with_advice(folder, error))?;
        let size = std::fs::metadata(&path).map_or(0, |file| file.len());
        if (size <= CHECK_BYTES_MAX || folder.was_unclean())
            && let Some(problem) = quick_check(&connection)?
        {
            return Err(with_advice(folder, StoreError::Corrupt { what: problem }));
        }
        connection
            .execute_batch(include_str!("../../../sql/sqlite/log.sql"))
            .map_err(|error| classify("make the log", error))?;
        let last = last_position(&connection)?;
        let inserts = ROWS_PER_INSERT.map(|rows| {
            (rows, format!("INSERT INTO log (id, body) VALUES (?,?){}", ",(?,?)".repeat(rows - 1)))
        });
        Ok(Self { connection, last, bodies: Vec::new(), inserts })
    }

    /// The highest position ever given.
    pub(super) fn last(&self) -> i64 {
        self.last
    }

    /// For the upkeep that happens between two commits.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Writes `events`, whose positions follow on [`Self::last`], in one commit. When it returns Ok they are on disk;
    /// on an error none is in the log, except after [`StoreError::Io`], when nobody knows.
    pub(super) fn append(&mut self, events: &[Arc<Accepted>]) -> Result<()> {
        let Some(newest) = events.last() else { return Ok(()) };
        self.bodies.clear();
        let mut rows = Vec::with_capacity(events.len());
        for (event, position) in events.iter().zip(self.last + 1..) {
            assert_eq!(event.position, position, "positions follow each other");
            let start = self.bodies.len();
            self.bodies = encode_into(event, std::mem::take(&mut self.bodies));
            rows.push((position, start..self.bodies.len()));
        }
        let written = self.write(&rows);
        // A batch of rare size must not stay in memory for good.
        self.bodies.shrink_to(READ_BYTES_MAX);
        match written {
            Ok(()) => {
                self.last = newest.position;
                Ok(())
            }
            Err(error) => {
                self.roll_back();
                Err(classify("append to the log", error))
            }
        }
    }

    fn write(&self, rows: &[(i64, Range<usize>)]) -> rusqlite::Result<()> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut left = rows;
        for (count, statement) in &self.inserts {
            while let Some((chunk, rest)) = left.split_at_checked(*count) {
                self.insert(statement, chunk)?;
                left = rest;
            }
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    fn insert(&self, statement: &str, rows: &[(i64, Range<usize>)]) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(statement)?;
        let mut parameter = 1;
        for (position, body) in rows {
            statement.raw_bind_parameter(parameter, position)?;
            statement.raw_bind_parameter(parameter + 1, &self.bodies[body.clone()])?;
            parameter += 2;
        }
        statement.raw_execute()?;
        Ok(())
    }

    /// Ends a transaction that failed. Some have ended by themselves.
    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            log::error!("rolling back a batch of the log: {error}");
        }
    }
}

/// Says what to do about a damaged log. Nobody but the operator may decide to go on without a part of it.
pub(super) fn with_advice(folder: &Folder, error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { what } => StoreError::Corrupt {
            what: format!(
                "{} is damaged, and nothing in it was changed ({what}): restore the folder from a backup, or keep a \
                 copy and recover the file with the sqlite3 shell (`.recover`)",
                folder.log_db().display()
            ),
        },
        other => other,
    }
}

pub(super) fn last_position(connection: &Connection) -> Result<i64> {
    const LAST: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'log'";
    let seq = connection
        .prepare_cached(LAST)
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)).optional())
        .map_err(|error| classify("last position of the log", error))?;
    Ok(seq.unwrap_or(0))
}

fn first_position(connection: &Connection) -> Result<Option<i64>> {
    connection
        .prepare_cached("SELECT min(id) FROM log")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(|error| classify("first position of the log", error))
}

/// Reads accepted events by position, on a connection of its own.
pub(super) struct LogReader {
    connection: Connection,
}

impl LogReader {
    /// Opens a log that exists: [`Log::open`] comes first.
    pub(super) fn open(folder: &Folder) -> Result<Self> {
        Ok(Self { connection: open_reader(&folder.log_db())? })
    }

    /// Up to `max` messages after `position`, in order. Fewer where their bodies are large; none at the end.
    pub(super) fn read_after(&mut self, position: i64, max: usize) -> Result<Vec<Message>> {
        const READ: &str = "SELECT id, body FROM log WHERE id > ? ORDER BY id LIMIT ?";
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let read = || -> rusqlite::Result<Vec<Message>> {
            let mut statement = self.connection.prepare_cached(READ)?;
            let mut rows = statement.query([position, limit])?;
            let (mut messages, mut size) = (Vec::new(), 0);
            while size < READ_BYTES_MAX
                && let Some(row) = rows.next()?
            {
                let position = row.get(0)?;
                let bytes = row.get_ref(1)?.as_blob()?;
                size += bytes.len();
                messages.push(match decode(position, bytes) {
                    Ok(event) => Message::Event(Arc::new(event)),
                    Err(problem) => {
                        Message::Undecodable { position, bytes: bytes.to_vec(), problem }
                    }
                });
            }
            Ok(messages)
        };
        read().map_err(|error| classify("read the log", error))
    }

    /// The lowest position still there. None: nothing is.
    pub(super) fn first_position(&mut self) -> Result<Option<i64>> {
        first_position(&self.connection)
    }

    /// The highest position ever given, also when the log is trimmed empty.
    pub(super) fn last_position(&mut self) -> Result<i64> {
        last_position(&self.connection)
    }
}

/// Takes up to `limit` of the oldest rows out, none above `up_to_position`, in one short transaction. Returns how
/// many. The connection may be one that does not wait for the disk: a trim that is lost is done again.
pub(super) fn trim(connection: &Connection, up_to_position: i64, limit: usize) -> Result<u64> {
    let Some(first) = first_position(connection)? else { return Ok(0) };
    let portion = i64::try_from(limit).unwrap_or(i64::MAX);
    let last = up_to_position.min(first.saturating_add(portion).saturating_sub(1));
    let trimmed = connection
        .prepare_cached("DELETE FROM log WHERE id BETWEEN ? AND ?")
        .and_then(|mut statement| statement.execute([first, last]))
        .map_err(|error| classify("trim the log", error))?;
    Ok(u64::try_from(trimmed).unwrap_or(u64::MAX))
}

/// Finds out whether the log takes writes, by one that means nothing.
pub(super) fn probe(connection: &Connection) -> Result<()> {
    connection
        .prepare_cached("UPDATE probe SET writes = writes + 1")
        .and_then(|mut statement| statement.execute([]))
        .map(|_| ())
        .map_err(|error| classify("probe the log", error))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn encode(event: &Accepted) -> Vec<u8> {
        encode_into(event, Vec::new())
    }

    /// An envelope as a door would make it.
    pub(in crate::store::sqlite) fn envelope(stream: &str, event_id: &str) -> Envelope {
        Envelope {
            tenant: TenantId::parse("t1").unwrap(),
            payload: r#"{"progress_percent":40.0}"#.into(),
            hash: PayloadHash([7; 32]),
            trace: TraceContext { trace_id: [1; 16], parent_id: [2; 8], sampled: true },
            ..Envelope::sample(event_id, stream, "process.progress")
        }
    }

    pub(in crate::store::sqlite) fn accepted(position: i64, stream: &str, seq: u64) -> Accepted {
        let received_at = Timestamp::from_micros(1_000_000 + position);
        Accepted {
            position,
            stream_seq: seq,
            received_at,
            ordered_at: received_at,
            clock_skew: false,
            envelope: envelope(stream, &format!("{stream}-{seq}")),
        }
    }

    fn events(positions: Range<i64>) -> Vec<Arc<Accepted>> {
        positions
            .map(|position| Arc::new(accepted(position, "s", position.unsigned_abs())))
            .collect()
    }

    fn positions(messages: &[Message]) -> Vec<i64> {
        messages.iter().map(Message::position).collect()
    }

    #[test]
    fn an_event_comes_out_of_the_log_as_it_went_in() {
        let mut event = accepted(9, "s", 3);
        event.envelope.key = Some(IdempotencyKey::parse("k").unwrap());
        event.envelope.occurred_at = Some(Timestamp::from_micros(-5));
        assert_eq!(decode(9, &encode(&event)).unwrap(), event);
    }

    #[test]
    fn bytes_that_are_no_event_are_named() {
        assert_eq!(decode(1, &[]).unwrap_err(), "it is empty");
        assert_eq!(decode(1, &[9, 1]).unwrap_err(), "it has format 9, which is not known");
        let mut bytes = encode(&accepted(1, "s", 1));
        bytes.push(0);
        assert_eq!(decode(1, &bytes).unwrap_err(), "1 bytes are left over");
        decode(1, &bytes[..20]).unwrap_err();
    }

    #[test]
    fn no_position_is_given_twice_even_after_a_trim_to_empty_and_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::lock(place.path()).unwrap();
        let mut log = Log::open(&folder).unwrap();
        log.append(&events(1..131)).unwrap();
        assert_eq!(trim(log.connection(), 1000, 100).unwrap(), 100, "a portion at a time");
        assert_eq!(trim(log.connection(), 129, 100).unwrap(), 29, "never above the position");
        assert_eq!(trim(log.connection(), 1000, 100).unwrap(), 1);
        assert_eq!(trim(log.connection(), 1000, 100).unwrap(), 0);
        drop(log);
        let mut log = Log::open(&folder).unwrap();
        let mut reader = LogReader::open(&folder).unwrap();
        assert_eq!((log.last(), reader.last_position().unwrap()), (130, 130));
        assert_eq!(reader.first_position().unwrap(), None);
        log.append(&events(131..133)).unwrap();
        assert_eq!(positions(&reader.read_after(0, 10).unwrap()), [131, 132]);
        assert_eq!(positions(&reader.read_after(131, 10).unwrap()), [132]);
        assert_eq!(reader.first_position().unwrap(), Some(131));
    }

    #[test]
    fn an_unreadable_row_comes_out_whole_and_does_not_stop_the_others() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::lock(place.path()).unwrap();
        let mut log = Log::open(&folder).unwrap();
        log.append(&events(1..4)).unwrap();
        log.connection().execute("UPDATE log SET body = x'0901' WHERE id = 2", []).unwrap();
        let messages = LogReader::open(&folder).unwrap().read_after(0, 10).unwrap();
        assert_eq!(positions(&messages), [1, 2, 3]);
        assert!(matches!(&messages[1], Message::Undecodable { bytes, .. } if bytes == &[9, 1]));
    }

    #[test]
    fn a_batch_that_fails_leaves_nothing_behind() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::lock(place.path()).unwrap();
        let mut log = Log::open(&folder).unwrap();
        log.append(&events(1..3)).unwrap();
        // No more room: as many pages as there are now, and no more.
        let pages: i64 =
            log.connection().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        log.connection().pragma_update(None, "max_page_count", pages).unwrap();
        let failure = log.append(&events(3..303)).unwrap_err();
        assert!(matches!(failure, StoreError::NoSpace { .. }), "{failure}");
        log.connection().pragma_update(None, "max_page_count", 1_000_000).unwrap();
        probe(log.connection()).unwrap();
        assert_eq!(log.last(), 2);
        log.append(&events(3..5)).unwrap();
        let messages = LogReader::open(&folder).unwrap().read_after(0, 10).unwrap();
        assert_eq!(positions(&messages), [1, 2, 3, 4]);
    }

    #[test]
    fn a_damaged_log_is_refused_in_words() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::lock(place.path()).unwrap();
        Log::open(&folder).unwrap().append(&events(1..500)).unwrap();
        let mut bytes = std::fs::read(folder.log_db()).unwrap();
        for (index, byte) in bytes.iter_mut().enumerate().skip(4096 * 3) {
            *byte = u8::try_from(index % 251).unwrap();
        }
        std::fs::write(folder.log_db(), &bytes).unwrap();
        let refusal = Log::open(&folder).err().expect("a damaged log does not open").to_string();
        assert!(refusal.contains("log.db is damaged"), "{refusal}");
        assert!(refusal.contains("restore the folder from a backup"), "{refusal}");
        std::fs::write(folder.log_db(), b"not a database, whatever it is called".repeat(100))
            .unwrap();
        let refusal = Log::open(&folder).err().expect("nor does another file").to_string();
        assert!(refusal.contains("log.db is damaged"), "{refusal}");
    }
}
