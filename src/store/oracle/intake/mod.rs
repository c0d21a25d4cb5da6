//! Accepts posted events: decides about repeats, numbers them, and puts them on the queue, all in one transaction.
//! This module is the intake session of the Oracle store.
//!
//! What makes it right with any number of instances: a key that two of them see for the first time is inserted by
//! one, and the other waits for its commit, fails by the primary key, and runs its whole batch again (law 11); the
//! counter of a stream is locked from reading it to the commit, so numbers have no gap (law 5); every write goes in
//! the order of its key.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use oracle::Connection;

use super::bind::{self, Bind, Written};
use super::errors::{self, Class};
use super::health::{Health, OUT_OF_REACH, QUEUE_CLOSED};
use super::message;
use super::session::Session;
use super::sql::{self, statement, text};
use crate::domain::event::{Envelope, IdOrigin, PayloadHash, Receipt, Verdict};
use crate::domain::ids::{EventId, ProcessId, StreamKey, TenantId};
use crate::domain::report::ReportKind;
use crate::domain::time::Timestamp;
use crate::store::{IntakeSession, Result, StoreError};

/// How often a batch is run again after a lost race or a deadlock, before its callers are told to try again.
const ATTEMPTS: u32 = 5;

/// Characters of a payload that goes to the queue in line. Four bytes each, it stays below what PL/SQL takes.
const INLINE_CHARS_MAX: usize = 8000;

/// A request's name: (tenant, key).
type ByKey = (String, String);
/// An event's own name: (tenant, source, event id).
type ById = (String, String, String);

/// What is remembered of an accepted event.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    hash: PayloadHash,
    receipt: Receipt,
}

/// Everything remembered that a batch asks for.
#[derive(Debug, Default)]
struct Memory {
    by_key: HashMap<ByKey, Known>,
    by_id: HashMap<ById, Known>,
}

/// What was decided about a batch.
#[derive(Debug, Default)]
struct Decision {
    verdicts: Vec<Option<Verdict>>,
    /// Which of the batch are accepted, in its order.
    accepted: Vec<usize>,
}

fn key_of(envelope: &Envelope) -> Option<ByKey> {
    let key = envelope.key.as_ref()?;
    Some((envelope.tenant.as_str().to_string(), key.as_str().to_string()))
}

fn id_of(envelope: &Envelope) -> Option<ById> {
    matches!(envelope.id_origin, IdOrigin::Caller).then(|| {
        (
            envelope.tenant.as_str().to_string(),
            envelope.source.as_str().to_string(),
            envelope.event_id.as_str().to_string(),
        )
    })
}

/// Numbers the accepted ones of a batch, in its order, onwards from the `last` of each stream.
fn number(
    batch: &[Envelope],
    accepted: &[usize],
    last: &BTreeMap<(String, String), u64>,
) -> (Vec<u64>, BTreeMap<(String, String), u64>) {
    let mut counters = last.clone();
    let numbers = accepted
        .iter()
        .map(|index| {
            let counter = counters.entry(stream_of(&batch[*index])).or_insert(0);
            *counter += 1;
            *counter
        })
        .collect();
    (numbers, counters)
}

fn stream_of(envelope: &Envelope) -> (String, String) {
    (envelope.tenant.as_str().to_string(), envelope.stream.as_str().to_string())
}

/// Which of a batch are repeats, of the past or of each other. A repeat within the batch is answered when the first
/// has its number: it names its place.
fn judge(batch: &[Envelope], memory: &Memory) -> (Decision, Vec<Option<usize>>) {
    let mut decision = Decision::default();
    let mut repeats_of = vec![None; batch.len()];
    let mut keys: HashMap<ByKey, usize> = HashMap::new();
    let mut ids: HashMap<ById, usize> = HashMap::new();
    for (index, envelope) in batch.iter().enumerate() {
        let (by_key, by_id) = (key_of(envelope), id_of(envelope));
        let known = |known: &Known, reused: Verdict| {
            if known.hash == envelope.hash {
                Verdict::Replayed(known.receipt.clone())
            } else {
                reused
            }
        };
        let before = by_key
            .as_ref()
            .and_then(|key| memory.by_key.get(key))
            .map(|record| known(record, Verdict::KeyReused))
            .or_else(|| {
                let record = by_id.as_ref().and_then(|id| memory.by_id.get(id))?;
                Some(known(record, Verdict::EventIdReused))
            });
        if before.is_some() {
            decision.verdicts.push(before);
            continue;
        }
        let first = by_key
            .as_ref()
            .and_then(|key| keys.get(key))
            .map(|first| (*first, Verdict::KeyReused))
            .or_else(|| {
                let first = by_id.as_ref().and_then(|id| ids.get(id))?;
                Some((*first, Verdict::EventIdReused))
            });
        match first {
            Some((first, _)) if batch[first].hash == envelope.hash => {
                repeats_of[index] = Some(first);
                decision.verdicts.push(None);
            }
            Some((_, reused)) => decision.verdicts.push(Some(reused)),
            None => {
                if let Some(key) = by_key {
                    keys.insert(key, index);
                }
                if let Some(id) = by_id {
                    ids.insert(id, index);
                }
                decision.accepted.push(index);
                decision.verdicts.push(None);
            }
        }
    }
    (decision, repeats_of)
}

/// The verdict of each, once the accepted ones have their numbers.
fn verdicts(
    batch: &[Envelope],
    decision: Decision,
    repeats_of: &[Option<usize>],
    numbers: &[u64],
    now: Timestamp,
) -> Vec<Verdict> {
    let receipts: HashMap<usize, Receipt> = decision
        .accepted
        .iter()
        .zip(numbers)
        .map(|(index, stream_seq)| {
            let envelope = &batch[*index];
            let receipt = Receipt {
                event_id: envelope.event_id.clone(),
                stream: envelope.stream.clone(),
                stream_seq: *stream_seq,
                received_at: now,
            };
            (*index, receipt)
        })
        .collect();
    let verdict = |(index, known): (usize, Option<Verdict>)| {
        let of = |place: usize| receipts.get(&place).cloned();
        known
            .or_else(|| Some(Verdict::Accepted(of(index)?)))
            .or_else(|| Some(Verdict::Replayed(of(repeats_of[index]?)?)))
            .unwrap_or(Verdict::Unavailable("the store did not decide"))
    };
    decision.verdicts.into_iter().enumerate().map(verdict).collect()
}

/// Why a transaction did not come to its end.
enum Stop {
    Driver(oracle::Error),
    /// Somebody else was first, or a deadlock: everything is run again.
    Again(String),
    /// A row that the schema refuses.
    Row(Class, String),
}

impl From<oracle::Error> for Stop {
    fn from(error: oracle::Error) -> Self {
        match errors::class_of(&error) {
            Class::Deadlock | Class::Duplicate | Class::Contention | Class::Invalidated => {
                Self::Again(error.to_string())
            }
            _ => Self::Driver(error),
        }
    }
}

/// Every row must have been written.
fn whole(written: &Written) -> std::result::Result<(), Stop> {
    match written.errors.first() {
        None => Ok(()),
        Some(error) => Err(match error.class {
            Class::Duplicate | Class::Deadlock | Class::Contention => {
                Stop::Again(error.text.clone())
            }
            class => Stop::Row(class, error.text.clone()),
        }),
    }
}

/// The intake session.
pub(super) struct Intake {
    session: Session,
    health: Arc<Health>,
    /// How long keys and event ids are remembered.
    window: Duration,
}

impl Intake {
    pub(super) fn new(session: Session, health: Arc<Health>, window: Duration) -> Self {
        Self { session, health, window }
    }

    fn accept_all(&mut self, now: Timestamp, batch: &[Envelope]) -> Result<Vec<Verdict>> {
        const CALL: &str = "accept";
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut attempt = 0;
        loop {
            let connection = self.session.ready(CALL)?;
            attempt += 1;
            let stop = match run(connection, batch, now, self.window) {
                Ok(verdicts) => {
                    self.session.went_well();
                    return Ok(verdicts);
                }
                Err(stop) => stop,
            };
            let error = match stop {
                Stop::Driver(error) => {
                    if errors::class_of(&error) == Class::QueueStopped {
                        self.health.writes_are_refused(QUEUE_CLOSED);
                    }
                    return Err(self.session.fail(CALL, &error));
                }
                Stop::Row(class, words) => return Err(self.session.fail_as(CALL, class, &words)),
                // Rolls back, so that the next attempt sees what the other one has committed.
                Stop::Again(words) => self.session.fail_as(CALL, Class::Contention, &words),
            };
            if attempt == ATTEMPTS || !self.session.is_open() {
                return Err(error);
            }
        }
    }
}

impl IntakeSession for Intake {
    fn accept(&mut self, now: Timestamp, batch: Vec<Envelope>) -> Result<Vec<Verdict>> {
        let outcome = self.accept_all(now, &batch);
        match &outcome {
            Ok(_) => self.health.writes_go_through(),
            Err(StoreError::NoSpace { why, .. }) => self.health.writes_are_refused(why),
            // A session that was lost is no reason to turn the next one away: who lost the answer to a commit asks
            // again at once, and gets it on a new session. Only where none can be had is the door closed.
            Err(StoreError::Disconnected { .. }) if self.session.cannot_connect() => {
                self.health.writes_are_refused(OUT_OF_REACH);
            }
            Err(_) => {}
        }
        outcome
    }
}

/// One transaction.
fn run(
    connection: &Connection,
    batch: &[Envelope],
    now: Timestamp,
    window: Duration,
) -> std::result::Result<Vec<Verdict>, Stop> {
    let since = now.minus(window);
    let (memory, expired) = remember(connection, batch, since)?;
    let (decision, repeats_of) = judge(batch, &memory);
    if decision.accepted.is_empty() {
        connection.rollback()?;
        return Ok(verdicts(batch, decision, &repeats_of, &[], now));
    }
    let streams: BTreeSet<(String, String)> =
        decision.accepted.iter().map(|index| stream_of(&batch[*index])).collect();
    let last = lock_counters(connection, &streams)?;
    let (numbers, counters) = number(batch, &decision.accepted, &last);
    let accepted: Vec<(&Envelope, u64)> =
        decision.accepted.iter().map(|index| &batch[*index]).zip(numbers.iter().copied()).collect();
    write_identities(connection, &accepted, &expired, now, since)?;
    write_counters(connection, &last, &counters)?;
    enqueue(connection, &accepted, now)?;
    make_known(connection, &accepted, now)?;
    connection.commit()?;
    Ok(verdicts(batch, decision, &repeats_of, &numbers, now))
}

/// Names that are remembered from before the window: their rows are renewed, not inserted.
#[derive(Default)]
struct Expired {
    keys: BTreeSet<ByKey>,
    ids: BTreeSet<ById>,
}

fn remember(
    connection: &Connection,
    batch: &[Envelope],
    since: Timestamp,
) -> oracle::Result<(Memory, Expired)> {
    let (mut memory, mut expired) = (Memory::default(), Expired::default());
    let keys: BTreeSet<ByKey> = batch.iter().filter_map(key_of).collect();
    let ids: BTreeSet<ById> = batch.iter().filter_map(id_of).collect();
    let keys: Vec<ByKey> = keys.into_iter().collect();
    for portion in keys.chunks(sql::LIST_MAX) {
        let length = sql::list_length(portion.len());
        let ask = sql::repeated(
            &text(statement!("idempotency"), &[]),
            "(:tenant_id, :idempotency_key)",
            length,
        );
        let binds: Vec<Bind<'_>> = fill(portion, length)
            .flat_map(|(tenant, key)| [Bind::text(tenant, 50), Bind::text(key, 255)])
            .collect();
        let found = bind::query(connection, &ask, &binds, portion.len(), |row| {
            let name = (bind::text(row, "tenant_id")?, bind::text(row, "idempotency_key")?);
            Ok((name, record(row, bind::text(row, "event_id")?)?))
        })?;
        for (name, known) in found {
            match known.filter(|known| known.receipt.received_at >= since) {
                Some(known) => {
                    memory.by_key.insert(name, known);
                }
                None => {
                    expired.keys.insert(name);
                }
            }
        }
    }
    let ids: Vec<ById> = ids.into_iter().collect();
    for portion in ids.chunks(sql::LIST_MAX) {
        let length = sql::list_length(portion.len());
        let ask = sql::repeated(
            &text(statement!("event_identity"), &[]),
            "(:tenant_id, :source, :event_id)",
            length,
        );
        let binds: Vec<Bind<'_>> = fill(portion, length)
            .flat_map(|(tenant, source, id)| {
                [Bind::text(tenant, 50), Bind::text(source, 200), Bind::text(id, 100)]
            })
            .collect();
        let found = bind::query(connection, &ask, &binds, portion.len(), |row| {
            let id = bind::text(row, "event_id")?;
            let name = (bind::text(row, "tenant_id")?, bind::text(row, "source")?, id.clone());
            Ok((name, record(row, id)?))
        })?;
        for (name, known) in found {
            match known.filter(|known| known.receipt.received_at >= since) {
                Some(known) => {
                    memory.by_id.insert(name, known);
                }
                None => {
                    expired.ids.insert(name);
                }
            }
        }
    }
    Ok((memory, expired))
}

/// The elements of a list, the last one again and again until it is long enough.
pub(super) fn fill<T>(portion: &[T], length: usize) -> impl Iterator<Item = &T> {
    portion.iter().chain(portion.iter().last().into_iter().cycle()).take(length)
}

/// A remembered row. None: something in it is none of ours, and it is treated like one that is past the window.
fn record(row: &oracle::Row, event_id: String) -> oracle::Result<Option<Known>> {
    let (hash, stream) = (bind::text(row, "payload_hash")?, bind::text(row, "stream_key")?);
    let stream_seq = bind::count(row, "stream_seq")?;
    let received_at = bind::time(row, "first_seen_utc")?;
    let known = || {
        Some(Known {
            hash: PayloadHash(message::from_hex(&hash)?),
            receipt: Receipt {
                event_id: EventId::parse(&event_id).ok()?,
                stream: StreamKey::parse(&stream).ok()?,
                stream_seq,
                received_at,
            },
        })
    };
    Ok(known())
}

fn lock_counters(
    connection: &Connection,
    streams: &BTreeSet<(String, String)>,
) -> oracle::Result<BTreeMap<(String, String), u64>> {
    let streams: Vec<&(String, String)> = streams.iter().collect();
    let mut last = BTreeMap::new();
    for portion in streams.chunks(sql::LIST_MAX) {
        let length = sql::list_length(portion.len());
        let ask = sql::repeated(
            &text(statement!("lock_stream_counters"), &[]),
            "(:tenant_id, :stream_key)",
            length,
        );
        let binds: Vec<Bind<'_>> = fill(portion, length)
            .flat_map(|(tenant, stream)| [Bind::text(tenant, 50), Bind::text(stream, 200)])
            .collect();
        last.extend(bind::query(connection, &ask, &binds, portion.len(), |row| {
            let name = (bind::text(row, "tenant_id")?, bind::text(row, "stream_key")?);
            Ok((name, bind::count(row, "last_seq")?))
        })?);
    }
    Ok(last)
}

fn write_counters(
    connection: &Connection,
    before: &BTreeMap<(String, String), u64>,
    after: &BTreeMap<(String, String), u64>,
) -> std::result::Result<(), Stop> {
    let (mut updates, mut inserts) = (Vec::new(), Vec::new());
    for (name, last_seq) in after {
        let (tenant, stream) = (Bind::text(&name.0, 50), Bind::text(&name.1, 200));
        if before.contains_key(name) {
            updates.push(vec![Bind::count(*last_seq), tenant, stream]);
        } else {
            inserts.push(vec![tenant, stream, Bind::count(*last_seq)]);
        }
    }
    whole(&bind::write_all(
        connection,
        &text(statement!("update_stream_counter"), &[]),
        &updates,
    )?)?;
    whole(&bind::write_all(connection, &text(statement!("insert_stream_counter"), &[]), &inserts)?)
}

fn write_identities(
    connection: &Connection,
    accepted: &[(&Envelope, u64)],
    expired: &Expired,
    now: Timestamp,
    since: Timestamp,
) -> std::result::Result<(), Stop> {
    let mut by_key: Vec<(ByKey, &Envelope, u64)> = accepted
        .iter()
        .filter_map(|(envelope, seq)| Some((key_of(envelope)?, *envelope, *seq)))
        .collect();
    by_key.sort_by(|a, b| a.0.cmp(&b.0));
    let (mut renewed, mut inserted) = (Vec::new(), Vec::new());
    for (name, envelope, seq) in &by_key {
        let hash = Bind::Owned(Some(message::hex(&envelope.hash.0)), 64);
        let answer = [
            Bind::text(envelope.event_id.as_str(), 100),
            Bind::text(envelope.stream.as_str(), 200),
            Bind::count(*seq),
            Bind::time(now),
        ];
        let named = [Bind::text(&name.0, 50), Bind::text(&name.1, 255)];
        if expired.keys.contains(name) {
            let mut row = vec![hash];
            row.extend(answer);
            row.extend(named);
            row.push(Bind::time(since));
            renewed.push(row);
        } else {
            let mut row = named.to_vec();
            row.push(hash);
            row.extend(answer);
            inserted.push(row);
        }
    }
    renew(connection, &text(statement!("renew_idempotency"), &[]), &renewed)?;
    whole(&bind::write_all(connection, &text(statement!("insert_idempotency"), &[]), &inserted)?)?;

    let mut by_id: Vec<(ById, &Envelope, u64)> = accepted
        .iter()
        .filter_map(|(envelope, seq)| Some((id_of(envelope)?, *envelope, *seq)))
        .collect();
    by_id.sort_by(|a, b| a.0.cmp(&b.0));
    let (mut renewed, mut inserted) = (Vec::new(), Vec::new());
    for (name, envelope, seq) in &by_id {
        let hash = Bind::Owned(Some(message::hex(&envelope.hash.0)), 64);
        let answer =
            [Bind::text(envelope.stream.as_str(), 200), Bind::count(*seq), Bind::time(now)];
        let named = [Bind::text(&name.0, 50), Bind::text(&name.1, 200), Bind::text(&name.2, 100)];
        if expired.ids.contains(name) {
            let mut row = vec![hash];
            row.extend(answer);
            row.extend(named);
            row.push(Bind::time(since));
            renewed.push(row);
        } else {
            let mut row = named.to_vec();
            row.push(hash);
            row.extend(answer);
            inserted.push(row);
        }
    }
    renew(connection, &text(statement!("renew_event_identity"), &[]), &renewed)?;
    whole(&bind::write_all(connection, &text(statement!("insert_event_identity"), &[]), &inserted)?)
}

/// Gives old names to new requests. One that touches nothing was renewed by somebody else meanwhile.
fn renew(
    connection: &Connection,
    statement: &str,
    rows: &[Vec<Bind<'_>>],
) -> std::result::Result<(), Stop> {
    let written = bind::write_all(connection, statement, rows)?;
    whole(&written)?;
    if written.untouched().is_empty() {
        Ok(())
    } else {
        Err(Stop::Again("a key past its window was used by somebody else".to_string()))
    }
}

fn enqueue(
    connection: &Connection,
    accepted: &[(&Envelope, u64)],
    now: Timestamp,
) -> std::result::Result<(), Stop> {
    let mut carried = Vec::with_capacity(accepted.len());
    for (envelope, seq) in accepted {
        let payload = message::carry(envelope, *seq, now)
            .map_err(|error| Stop::Row(Class::BadData, error.to_string()))?;
        carried.push((*envelope, payload));
    }
    let call = text(statement!("enqueue"), &[]);
    let row = |envelope: &Envelope, payload| {
        vec![
            Bind::Owned(Some(envelope.event_id.as_str().to_string()), 100),
            Bind::text(message::ENVELOPE, 50),
            Bind::Owned(Some(envelope.stream.as_str().chars().take(100).collect()), 100),
            Bind::Owned(Some(envelope.tenant.as_str().to_string()), 50),
            Bind::Integer(Some(message::priority(envelope.event_type.as_str()))),
            payload,
        ]
    };
    // Runs of short payloads go in arrays, a long one goes alone, and the order stays that of acceptance.
    let mut waiting: Vec<Vec<Bind<'_>>> = Vec::new();
    for (envelope, payload) in &carried {
        let chars = payload.chars().count();
        if chars <= INLINE_CHARS_MAX {
            let width = u32::try_from(chars.next_power_of_two()).unwrap_or(u32::MAX);
            waiting.push(row(envelope, Bind::text(payload, width)));
        } else {
            bind::call_all(connection, &call, &waiting)?;
            waiting.clear();
            bind::call(connection, &call, &row(envelope, Bind::Clob(payload)))?;
        }
    }
    Ok(bind::call_all(connection, &call, &waiting)?)
}

/// Makes processes known that start here, so that `/status` answers from the acknowledgement on. One that is known
/// stays as it is: what is new of it is applied by a listener.
fn make_known(
    connection: &Connection,
    accepted: &[(&Envelope, u64)],
    now: Timestamp,
) -> std::result::Result<(), Stop> {
    let mut started: BTreeMap<(TenantId, ProcessId), &Envelope> = BTreeMap::new();
    for (envelope, _) in accepted {
        if envelope.event_type.as_str() == ReportKind::Start.event_type()
            && let Some(process) = envelope.stream.process()
        {
            started.entry((envelope.tenant.clone(), process)).or_insert(envelope);
        }
    }
    if started.is_empty() {
        return Ok(());
    }
    let (mut registry, mut live) = (Vec::new(), Vec::new());
    for ((tenant, process), envelope) in &started {
        let names = [Bind::text(tenant.as_str(), 50), Bind::text(process.as_str(), 100)];
        let mut row = names.to_vec();
        row.push(Bind::time(now));
        registry.push(row);
        let began = envelope.occurred_at.unwrap_or(now);
        let mut row = names.to_vec();
        row.extend([
            Bind::text(envelope.event_id.as_str(), 100),
            Bind::time(began),
            Bind::time(now),
        ]);
        live.push(row);
    }
    for (statement, rows) in [
        (statement!("insert_started_process"), registry),
        (statement!("insert_started_status"), live),
    ] {
        let mut written = bind::write_all(connection, &text(statement, &[]), &rows)?;
        written.errors.retain(|error| error.class != Class::Duplicate);
        whole(&written)?;
    }
    Ok(())
}
