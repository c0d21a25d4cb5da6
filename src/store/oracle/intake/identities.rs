//! The names of accepted events: keys of requests, and the events' own. This module looks up what is remembered of them,
//! and remembers new ones.

use std::collections::BTreeSet;

use oracle::{Connection, Row};

use super::super::bind::{self, Bind};
use super::super::message;
use super::super::sql::{self, fill, statement, text};
use super::judgement::{ById, ByKey, Known, Memory, id_of, key_of};
use super::{Stop, whole};
use crate::domain::event::{Envelope, PayloadHash, Receipt};
use crate::domain::ids::{EventId, StreamKey};
use crate::domain::time::Timestamp;

/// Names that are remembered from before the window: their rows are renewed, not inserted.
#[derive(Default)]
pub(super) struct Expired {
    keys: BTreeSet<ByKey>,
    ids: BTreeSet<ById>,
}

/// Everything that a batch asks for, as far as it was accepted after `since`.
pub(super) fn remember(
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

/// A remembered row. None: something in it is none of ours, and it is treated like one that is past the window.
fn record(row: &Row, event_id: String) -> oracle::Result<Option<Known>> {
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

/// Rows of names, in the order of their keys.
#[derive(Default)]
struct Names<'a> {
    renewed: Vec<Vec<Bind<'a>>>,
    inserted: Vec<Vec<Bind<'a>>>,
}

impl<'a> Names<'a> {
    /// A name, and what it stands for from now on. One that is remembered from before `since` has a row already.
    fn add(
        &mut self,
        name: &[Bind<'a>],
        stands_for: &[Bind<'a>],
        is_expired: bool,
        since: Timestamp,
    ) {
        if is_expired {
            self.renewed.push([stands_for, name, &[Bind::time(since)]].concat());
        } else {
            self.inserted.push([name, stands_for].concat());
        }
    }

    fn write(&self, connection: &Connection, renew: &str, insert: &str) -> Result<(), Stop> {
        let written = bind::write_all(connection, renew, &self.renewed)?;
        whole(&written)?;
        // One that touches nothing was renewed by somebody else meanwhile.
        if !written.untouched().is_empty() {
            return Err(Stop::Again("a key past its window was used by somebody else".to_string()));
        }
        whole(&bind::write_all(connection, insert, &self.inserted)?)
    }
}

/// Remembers the names of accepted events, each with its number in its stream.
pub(super) fn write(
    connection: &Connection,
    accepted: &[(&Envelope, u64)],
    expired: &Expired,
    now: Timestamp,
    since: Timestamp,
) -> Result<(), Stop> {
    let hash = |envelope: &Envelope| Bind::Owned(Some(message::hex(&envelope.hash.0)), 64);
    let mut by_key: Vec<(ByKey, &Envelope, u64)> = accepted
        .iter()
        .filter_map(|(envelope, seq)| Some((key_of(envelope)?, *envelope, *seq)))
        .collect();
    by_key.sort_by(|a, b| a.0.cmp(&b.0));
    let mut names = Names::default();
    for (name, envelope, seq) in &by_key {
        let key = [Bind::text(&name.0, 50), Bind::text(&name.1, 255)];
        let answer = [
            hash(envelope),
            Bind::text(envelope.event_id.as_str(), 100),
            Bind::text(envelope.stream.as_str(), 200),
            Bind::count(*seq),
            Bind::time(now),
        ];
        names.add(&key, &answer, expired.keys.contains(name), since);
    }
    let (renew, insert) = (statement!("renew_idempotency"), statement!("insert_idempotency"));
    names.write(connection, &text(renew, &[]), &text(insert, &[]))?;

    let mut by_id: Vec<(ById, &Envelope, u64)> = accepted
        .iter()
        .filter_map(|(envelope, seq)| Some((id_of(envelope)?, *envelope, *seq)))
        .collect();
    by_id.sort_by(|a, b| a.0.cmp(&b.0));
    let mut names = Names::default();
    for (name, envelope, seq) in &by_id {
        let id = [Bind::text(&name.0, 50), Bind::text(&name.1, 200), Bind::text(&name.2, 100)];
        let answer = [
            hash(envelope),
            Bind::text(envelope.stream.as_str(), 200),
            Bind::count(*seq),
            Bind::time(now),
        ];
        names.add(&id, &answer, expired.ids.contains(name), since);
    }
    let (renew, insert) = (statement!("renew_event_identity"), statement!("insert_event_identity"));
    names.write(connection, &text(renew, &[]), &text(insert, &[]))
}
