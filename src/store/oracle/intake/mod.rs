//! Accepts posted events: decides about repeats, numbers them, and puts them on the queue, all in one transaction.
//! This module is the intake session of the Oracle store.
//!
//! What makes it right with any number of instances: a key that two of them see for the first time is inserted by
//! one, and the other waits for its commit, fails by the primary key, and runs its whole batch again (law 11); the
//! counter of a stream is locked from reading it to the commit, so numbers have no gap (law 5); every write goes in
//! the order of its key.

mod identities;
mod judgement;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use oracle::Connection;

use self::judgement::{judge, number, stream_of, verdicts};
use super::bind::{self, Bind, Written};
use super::errors::{self, Class};
use super::health::{Health, OUT_OF_REACH, QUEUE_CLOSED};
use super::message;
use super::session::Session;
use super::sql::{self, fill, statement, text};
use crate::domain::event::{Envelope, Verdict};
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::report::ReportKind;
use crate::domain::time::Timestamp;
use crate::store::{IntakeSession, Result, StoreError};

/// How often a batch is run again after a lost race or a deadlock, before its callers are told to try again.
const ATTEMPTS: u32 = 5;

/// Characters of a payload that goes to the queue in line. Four bytes each, it stays below what PL/SQL takes.
const INLINE_CHARS_MAX: usize = 8000;

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
    let (memory, expired) = identities::remember(connection, batch, since)?;
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
    identities::write(connection, &accepted, &expired, now, since)?;
    write_counters(connection, &last, &counters)?;
    enqueue(connection, &accepted, now)?;
    make_known(connection, &accepted, now)?;
    connection.commit()?;
    Ok(verdicts(batch, decision, &repeats_of, &numbers, now))
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
