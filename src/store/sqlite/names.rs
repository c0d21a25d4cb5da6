//! Texts that repeat, kept once. This module gives tenants, sources, event types and streams their numbers and
//! remembers them, so that an event costs integers. A number never changes and is never given back, so a remembered
//! one stays true; only a transaction that failed can make it false, and then the writer forgets everything.

use std::collections::HashMap;
use std::hash::Hash;

use rusqlite::{Connection, OptionalExtension};

use crate::domain::ids::{EventType, IdError, Source, StreamKey};

/// Remembered texts of one kind. Tenants, sources and types are few; a caller that invents new ones all the time
/// must not fill the memory, so a full map is emptied and fills again.
const NAMES_MAX: usize = 10_000;
/// Remembered streams: what a busy hour touches. About 150 bytes each.
const STREAMS_MAX: usize = 100_000;

/// Puts `value` into a map that starts afresh when it is full.
fn remember<K: Hash + Eq, V>(map: &mut HashMap<K, V>, max: usize, key: K, value: V) {
    if map.len() >= max {
        map.clear();
    }
    map.insert(key, value);
}

/// A table of names: its statements, in full, because a table's name cannot be bound.
struct Kind {
    find: &'static str,
    add: &'static str,
    known: HashMap<Box<str>, i64>,
}

impl Kind {
    fn new(find: &'static str, add: &'static str) -> Self {
        Self { find, add, known: HashMap::new() }
    }

    fn find(&mut self, connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
        if let Some(&number) = self.known.get(name) {
            return Ok(Some(number));
        }
        let found =
            connection.prepare_cached(self.find)?.query_row([name], |row| row.get(0)).optional()?;
        if let Some(number) = found {
            remember(&mut self.known, NAMES_MAX, Box::from(name), number);
        }
        Ok(found)
    }

    fn number(&mut self, connection: &Connection, name: &str) -> rusqlite::Result<i64> {
        if let Some(number) = self.find(connection, name)? {
            return Ok(number);
        }
        connection.prepare_cached(self.add)?.execute([name])?;
        let number = connection.last_insert_rowid();
        remember(&mut self.known, NAMES_MAX, Box::from(name), number);
        Ok(number)
    }
}

/// The numbers of names, for the one who writes them.
pub(super) struct Names {
    tenants: Kind,
    sources: Kind,
    types: Kind,
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            tenants: Kind::new(
                "SELECT tenant_id FROM tenant WHERE name = ?1",
                "INSERT INTO tenant (name) VALUES (?1)",
            ),
            sources: Kind::new(
                "SELECT source_id FROM source WHERE name = ?1",
                "INSERT INTO source (name) VALUES (?1)",
            ),
            types: Kind::new(
                "SELECT type_id FROM event_type WHERE name = ?1",
                "INSERT INTO event_type (name) VALUES (?1)",
            ),
        }
    }

    /// The number of a tenant that is known already.
    pub(super) fn known_tenant(
        &mut self,
        connection: &Connection,
        name: &str,
    ) -> rusqlite::Result<Option<i64>> {
        self.tenants.find(connection, name)
    }

    /// Forgets what a failed transaction may have made up.
    pub(super) fn forget(&mut self) {
        *self = Self::new();
    }

    pub(super) fn tenant(&mut self, connection: &Connection, name: &str) -> rusqlite::Result<i64> {
        self.tenants.number(connection, name)
    }

    pub(super) fn source(&mut self, connection: &Connection, name: &str) -> rusqlite::Result<i64> {
        self.sources.number(connection, name)
    }

    pub(super) fn event_type(
        &mut self,
        connection: &Connection,
        name: &str,
    ) -> rusqlite::Result<i64> {
        self.types.number(connection, name)
    }
}

/// The numbers of streams, for the one who writes them: by tenant, then by key.
#[derive(Default)]
pub(super) struct StreamNumbers {
    known: HashMap<i64, HashMap<StreamKey, i64>>,
    count: usize,
}

impl StreamNumbers {
    pub(super) fn find(
        &mut self,
        connection: &Connection,
        tenant: i64,
        key: &StreamKey,
    ) -> rusqlite::Result<Option<i64>> {
        if let Some(&number) = self.known.get(&tenant).and_then(|streams| streams.get(key)) {
            return Ok(Some(number));
        }
        let found = connection
            .prepare_cached(
                "SELECT stream_id FROM stream WHERE tenant_id = ?1 AND stream_key = ?2",
            )?
            .query_row((tenant, key.as_str()), |row| row.get(0))
            .optional()?;
        if let Some(number) = found {
            self.remember(tenant, key, number);
        }
        Ok(found)
    }

    pub(super) fn remember(&mut self, tenant: i64, key: &StreamKey, number: i64) {
        if self.count >= STREAMS_MAX {
            self.known.clear();
            self.count = 0;
        }
        self.known.entry(tenant).or_default().insert(key.clone(), number);
        self.count += 1;
    }
}

/// The texts behind the numbers, for those who read. A text that is no valid name is reported as such.
#[derive(Default)]
pub(super) struct Texts {
    sources: HashMap<i64, Source>,
    types: HashMap<i64, EventType>,
    streams: HashMap<i64, StreamKey>,
}

/// Wraps the complaint about a text that this service never writes.
pub(super) fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}

fn text<T: Clone>(
    known: &mut HashMap<i64, T>,
    connection: &Connection,
    find: &'static str,
    number: i64,
    parse: impl Fn(&str) -> Result<T, IdError>,
) -> rusqlite::Result<T> {
    if let Some(value) = known.get(&number) {
        return Ok(value.clone());
    }
    let found: String = connection.prepare_cached(find)?.query_row([number], |row| row.get(0))?;
    let value = parse(&found).map_err(unreadable)?;
    remember(known, NAMES_MAX, number, value.clone());
    Ok(value)
}

impl Texts {
    pub(super) fn source(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> rusqlite::Result<Source> {
        let find = "SELECT name FROM source WHERE source_id = ?1";
        text(&mut self.sources, connection, find, number, Source::parse)
    }

    pub(super) fn event_type(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> rusqlite::Result<EventType> {
        let find = "SELECT name FROM event_type WHERE type_id = ?1";
        text(&mut self.types, connection, find, number, EventType::parse)
    }

    pub(super) fn stream(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> rusqlite::Result<StreamKey> {
        let find = "SELECT stream_key FROM stream WHERE stream_id = ?1";
        text(&mut self.streams, connection, find, number, StreamKey::parse)
    }
}
