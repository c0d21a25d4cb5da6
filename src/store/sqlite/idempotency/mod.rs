//! Recognizes repeats: a request that comes twice has one effect and gets the first answer. This module holds the
//! rules, and the memory of what was accepted.
//!
//! An event has up to two identities: (tenant, key), and (tenant, source, event id) where the caller chose the id.
//! Both are remembered as 16 bytes. What must stay true: an identity is in memory from acceptance until the
//! projection has it, and from then on it is in `events.db` ([`tables`]) and in the filter of its table, so that
//! "never seen" is always true; and what is older than the window does not count.

mod filter;
mod tables;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::domain::event::{Accepted, Envelope, IdOrigin, PayloadHash, Receipt, Verdict};
use crate::domain::ids::{EventId, StreamKey};
use crate::domain::time::Timestamp;
use crate::store::Result;
use filter::Filter;
pub(in crate::store::sqlite) use tables::{drop_older_than, migrate, record, remove};

/// Identities kept in memory beyond those that the projection lacks: a repeat mostly comes within seconds, and then
/// needs no disk. Some 200 bytes each.
const RECENT_MAX: usize = 65_536;

/// Filters in memory at most, of 1 MiB each: 67 million events within the window. Tables beyond that are looked up
/// without a filter, which is right but slow.
const FILTERS_MAX: usize = 256;

/// The first 16 bytes of a SHA-256 over what identifies. To pass for a given identity of another tenant takes 2^128
/// attempts; two of one's own that collide take 2^64, and harm nobody else.
type Digest = [u8; 16];

fn digest(domain: &[u8], parts: &[&str]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(domain);
    for part in parts {
        // No id holds a control character, so this separates them.
        hash.update([0]);
        hash.update(part);
    }
    first_half(&hash.finalize().into())
}

fn first_half(hash: &[u8; 32]) -> Digest {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}

/// The identities of an envelope: by key, and by source and event id.
pub(super) struct Identity([Option<Digest>; 2]);

impl Identity {
    pub(super) fn of(envelope: &Envelope) -> Self {
        let tenant = envelope.tenant.as_str();
        let by_key = envelope.key.as_ref().map(|key| digest(b"key", &[tenant, key.as_str()]));
        let by_id = matches!(envelope.id_origin, IdOrigin::Caller).then(|| {
            digest(b"event", &[tenant, envelope.source.as_str(), envelope.event_id.as_str()])
        });
        Self([by_key, by_id])
    }

    fn digests(&self) -> impl Iterator<Item = Digest> {
        self.0.into_iter().flatten()
    }
}

/// What is remembered of an identity: enough to recognize the same payload and to repeat the first answer.
#[derive(Debug, Clone, PartialEq)]
struct Record {
    /// The first half of the payload's hash, which is plenty: the only one whom a second payload with the same half
    /// could deceive is the caller who spent 2^64 attempts on making it.
    hash: Digest,
    position: i64,
    receipt: Receipt,
}

/// [`Record`] on the disk.
#[derive(Serialize, Deserialize)]
struct StoredRecord<'r> {
    hash: Digest,
    position: i64,
    stream_seq: u64,
    received_at: Timestamp,
    #[serde(borrow)]
    event_id: StoredId<'r>,
    stream: &'r str,
}

/// Most event ids are UUIDs, which need 16 bytes and not 36.
#[derive(Serialize, Deserialize)]
enum StoredId<'r> {
    Uuid([u8; 16]),
    Text(&'r str),
}

impl Record {
    fn of(event: &Accepted) -> Self {
        Self {
            hash: first_half(&event.envelope.hash.0),
            position: event.position,
            receipt: Receipt {
                event_id: event.envelope.event_id.clone(),
                stream: event.envelope.stream.clone(),
                stream_seq: event.stream_seq,
                received_at: event.received_at,
            },
        }
    }

    fn is_of(&self, hash: &PayloadHash) -> bool {
        self.hash == first_half(&hash.0)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let id = self.receipt.event_id.as_str();
        let uuid = uuid::Uuid::try_parse(id).ok().filter(|uuid| {
            // Only the usual form comes back as it was.
            uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()) == id
        });
        let stored = StoredRecord {
            hash: self.hash,
            position: self.position,
            stream_seq: self.receipt.stream_seq,
            received_at: self.receipt.received_at,
            event_id: uuid.map_or(StoredId::Text(id), |uuid| StoredId::Uuid(uuid.into_bytes())),
            stream: self.receipt.stream.as_str(),
        };
        postcard::to_stdvec(&stored).expect("memory takes every record, whose shape postcard knows")
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let stored: StoredRecord<'_> = postcard::from_bytes(bytes).ok()?;
        Some(Self {
            hash: stored.hash,
            position: stored.position,
            receipt: Receipt {
                event_id: match stored.event_id {
                    StoredId::Uuid(bytes) => EventId::from_uuid(uuid::Uuid::from_bytes(bytes)),
                    StoredId::Text(text) => EventId::parse(text).ok()?,
                },
                stream: StreamKey::parse(stored.stream).ok()?,
                stream_seq: stored.stream_seq,
                received_at: stored.received_at,
            },
        })
    }
}

/// What intake knows of a table in `events.db`.
struct Table {
    newest_received: Timestamp,
    /// None: beyond [`FILTERS_MAX`] or past the window, so the table itself is asked.
    filter: Option<Filter>,
}

/// Everything accepted within the window. Owned by intake.
pub(super) struct Identities {
    window: Duration,
    /// What the projection lacks, and the most recent of the rest.
    recent: HashMap<Digest, Record>,
    /// In the order of acceptance, to forget the oldest first.
    order: VecDeque<(i64, Digest)>,
    tables: BTreeMap<i64, Table>,
}

impl Identities {
    /// Loads the filters of what `events` holds. `window`: how long an identity counts.
    pub(super) fn open(events: &Connection, window: Duration, now: Timestamp) -> Result<Self> {
        let mut identities = Self {
            window,
            recent: HashMap::new(),
            order: VecDeque::new(),
            tables: BTreeMap::new(),
        };
        for (number, newest_received) in tables::list(events)? {
            // Newest first: what is beyond the bound is the oldest. One past the window is known without its filter, for a
            // clock that is ahead may be set back; but the newest takes rows.
            let counts = newest_received >= now.minus(window) || identities.tables.is_empty();
            let filter = match counts && filters(&identities.tables) < FILTERS_MAX {
                true => Some(tables::filter(events, number)?),
                false => None,
            };
            identities.tables.insert(number, Table { newest_received, filter });
        }
        Ok(identities)
    }

    /// The verdict on a repeat. None: it is new. `look_up` gives the projection, in a read transaction that was
    /// begun after [`Self::forget`] was last called.
    pub(super) fn judge<'c>(
        &self,
        now: Timestamp,
        identity: &Identity,
        hash: &PayloadHash,
        look_up: impl Fn() -> Result<&'c Connection>,
    ) -> Result<Option<Verdict>> {
        let refusals = [Verdict::KeyReused, Verdict::EventIdReused];
        for (digest, refusal) in identity.0.iter().zip(refusals) {
            let Some(digest) = digest else { continue };
            if let Some(record) = self.find(now, digest, &look_up)? {
                return Ok(Some(match record.is_of(hash) {
                    true => Verdict::Replayed(record.receipt),
                    false => refusal,
                }));
            }
        }
        Ok(None)
    }

    fn find<'c>(
        &self,
        now: Timestamp,
        digest: &Digest,
        look_up: impl Fn() -> Result<&'c Connection>,
    ) -> Result<Option<Record>> {
        let since = now.minus(self.window);
        let found = match self.recent.get(digest) {
            Some(record) => Some(record.clone()),
            None => self.find_stored(since, digest, look_up)?,
        };
        Ok(found.filter(|record| record.receipt.received_at >= since))
    }

    fn find_stored<'c>(
        &self,
        since: Timestamp,
        digest: &Digest,
        look_up: impl Fn() -> Result<&'c Connection>,
    ) -> Result<Option<Record>> {
        for (number, table) in self.tables.iter().rev() {
            let may_hold = table.newest_received >= since
                && table.filter.as_ref().is_none_or(|filter| filter.may_hold(digest));
            if may_hold && let Some(record) = tables::find(look_up()?, *number, digest)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Takes in an event that is being accepted, or lies in the log since before the start.
    pub(super) fn add(&mut self, event: &Accepted, identity: &Identity) {
        let record = Record::of(event);
        for digest in identity.digests() {
            self.recent.insert(digest, record.clone());
            self.order.push_back((event.position, digest));
        }
    }

    /// What was added above `position` is durable: from now on the tables may hold it.
    pub(super) fn keep(&mut self, position: i64, received_at: Timestamp) {
        for (at, digest) in self.order.iter().rev().take_while(|(at, _)| *at > position) {
            let number = tables::table_of(*at);
            let table = match self.tables.get_mut(&number) {
                Some(table) => table,
                None => {
                    make_room(&mut self.tables);
                    let filter = Some(Filter::new());
                    self.tables
                        .entry(number)
                        .or_insert(Table { newest_received: received_at, filter })
                }
            };
            table.newest_received = table.newest_received.max(received_at);
            if let Some(filter) = &mut table.filter {
                filter.add(digest);
            }
        }
    }

    /// Nothing above `position` was committed.
    pub(super) fn take_back(&mut self, position: i64) {
        while let Some((at, digest)) = self.order.back()
            && *at > position
        {
            self.recent.remove(digest);
            self.order.pop_back();
        }
    }

    /// Forgets the oldest of what the projection has, if there are too many, and the filters of tables past the window.
    pub(super) fn forget(&mut self, now: Timestamp, trimmed_to: i64) {
        while self.order.len() > RECENT_MAX
            && let Some((position, digest)) = self.order.front()
            && *position <= trimmed_to
        {
            // A later event may have the identity by now, after the window of the first.
            if self.recent.get(digest).is_some_and(|record| record.position == *position) {
                self.recent.remove(digest);
            }
            self.order.pop_front();
        }
        let since = now.minus(self.window);
        let current = self.tables.last_key_value().map(|(number, _)| *number);
        // What goes is the filter, which is large; the table is asked again if the clock was ahead and is set back.
        for (number, table) in &mut self.tables {
            if Some(*number) != current && table.newest_received < since {
                table.filter = None;
            }
        }
    }
}

#[cfg(test)]
impl Identities {
    pub(super) fn recent_count(&self) -> usize {
        self.recent.len()
    }
}

fn filters(tables: &BTreeMap<i64, Table>) -> usize {
    tables.values().filter(|table| table.filter.is_some()).count()
}

/// Gives up the filter of the oldest table, if there are too many for another one.
fn make_room(tables: &mut BTreeMap<i64, Table>) {
    if filters(tables) >= FILTERS_MAX
        && let Some(oldest) = tables.values_mut().find(|table| table.filter.is_some())
    {
        oldest.filter = None;
        log::warn!(
            "more event ids are remembered than fit in memory: the oldest are looked up on disk"
        );
    }
}
