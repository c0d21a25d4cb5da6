//! The order of a process's events. This module holds the key that decides which of two events came first, the same
//! on every instance and after every rebuild (law 2).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::domain::event::Accepted;
use crate::domain::ids::{EventId, Source};
use crate::domain::time::Timestamp;

/// What sorts first among events of one moment: a start, then what a run reports, then its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    Start,
    Report,
    End,
}

impl Rank {
    /// As it is written in payloads and states.
    pub const fn number(self) -> u8 {
        match self {
            Self::Start => 0,
            Self::Report => 1,
            Self::End => 2,
        }
    }

    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Start),
            1 => Some(Self::Report),
            2 => Some(Self::End),
            _ => None,
        }
    }
}

/// Where an event stands among all events of its process. No two events of a process have the same.
///
/// The fields are compared in the order in which they stand here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub at: Timestamp,
    pub rank: Rank,
    pub source: Source,
    pub event_id: EventId,
    /// A judgement takes the key of the sign of life it judged and stands just after it (law 4).
    pub echo: bool,
}

impl Key {
    /// The key of an event that stands for itself.
    pub fn of(event: &Accepted, rank: Rank) -> Self {
        Self {
            at: event.ordered_at,
            rank,
            source: event.envelope.source.clone(),
            event_id: event.envelope.event_id.clone(),
            echo: false,
        }
    }
}

/// A key as it is stored. Nearly every event id is a UUID, and 16 bytes are less than 36 characters.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    at: Timestamp,
    rank: u8,
    source: &'a str,
    #[serde(borrow)]
    event_id: WireId<'a>,
}

#[derive(Serialize, Deserialize)]
enum WireId<'a> {
    Uuid([u8; 16]),
    Text(&'a str),
}

/// Added to the rank of an echo.
const ECHO: u8 = 4;

/// The bytes of a UUID in the one spelling that comes back unchanged.
fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let uuid = Uuid::try_parse(text).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (uuid.hyphenated().encode_lower(&mut buffer) == text).then_some(uuid.into_bytes())
}

pub(super) fn serialize_id<S: Serializer>(id: &EventId, serializer: S) -> Result<S::Ok, S::Error> {
    wire_id(id).serialize(serializer)
}

pub(super) fn deserialize_id<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<EventId, D::Error> {
    parse_id(&WireId::deserialize(deserializer)?)
}

fn wire_id(id: &EventId) -> WireId<'_> {
    match uuid_bytes(id.as_str()) {
        Some(bytes) => WireId::Uuid(bytes),
        None => WireId::Text(id.as_str()),
    }
}

fn parse_id<E: de::Error>(id: &WireId<'_>) -> Result<EventId, E> {
    match id {
        WireId::Uuid(bytes) => Ok(EventId::from_uuid(Uuid::from_bytes(*bytes))),
        WireId::Text(text) => EventId::parse(text).map_err(E::custom),
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire {
            at: self.at,
            rank: self.rank.number() + if self.echo { ECHO } else { 0 },
            source: self.source.as_str(),
            event_id: wire_id(&self.event_id),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let rank = Rank::from_number(wire.rank % ECHO)
            .ok_or_else(|| de::Error::custom("a key has an unknown rank"))?;
        Ok(Self {
            at: wire.at,
            rank,
            source: Source::parse(wire.source).map_err(de::Error::custom)?,
            event_id: parse_id(&wire.event_id)?,
            echo: wire.rank >= ECHO,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, echo: bool) -> Key {
        Key {
            at: Timestamp::from_micros(7),
            rank: Rank::Report,
            source: Source::parse("orders").unwrap(),
            event_id: EventId::parse(id).unwrap(),
            echo,
        }
    }

    #[test]
    fn a_key_comes_back_as_it_was_whatever_its_id_looks_like() {
        for id in [
            "b2c6f1a9-2c2a-4d2d-9b7b-0b5f2a0a67d1",
            "B2C6F1A9-2C2A-4D2D-9B7B-0B5F2A0A67D1",
            "b2c6f1a92c2a4d2d9b7b0b5f2a0a67d1",
            "step-17",
        ] {
            for echo in [false, true] {
                let bytes = postcard::to_stdvec(&key(id, echo)).unwrap();
                assert_eq!(postcard::from_bytes::<Key>(&bytes).unwrap(), key(id, echo), "{id}");
            }
        }
    }

    #[test]
    fn a_uuid_takes_sixteen_bytes() {
        let uuid =
            postcard::to_stdvec(&key("b2c6f1a9-2c2a-4d2d-9b7b-0b5f2a0a67d1", false)).unwrap();
        assert_eq!(uuid.len(), 1 + 1 + 7 + 17);
    }

    #[test]
    fn an_echo_stands_just_after_what_it_repeats() {
        assert!(key("a", false) < key("a", true));
        assert!(key("a", true) < key("b", false));
    }
}
