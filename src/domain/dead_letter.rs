//! An event that could not be applied, kept whole with the reason. This module is its shape and its reasons.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// Why an event was set aside. A closed set: it is a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its bytes are not an event.
    Undecodable,
    /// Its type is a `process.*` that nobody may send.
    UnknownType,
    /// Its payload does not fit its type.
    InvalidPayload,
    /// Applying it hit a bug of ours.
    Panic,
}

impl Reason {
    pub const ALL: [Self; 4] =
        [Self::Undecodable, Self::UnknownType, Self::InvalidPayload, Self::Panic];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::UnknownType => "unknown_type",
            Self::InvalidPayload => "invalid_payload",
            Self::Panic => "panic",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// The tenant of a message so broken that it names none: seen by admins only.
pub const NO_TENANT: &str = "#none";

/// An event that was set aside. Its number in the stream stays taken: a tombstone (law 5).
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its place in the log.
    pub id: i64,
    /// A tenant id, or [`NO_TENANT`].
    pub tenant: String,
    pub reason: Reason,
    /// What exactly was wrong, for people.
    pub detail: String,
    /// The whole event as JSON, or `{"bytes_base64": …}` where it could not be read.
    pub snapshot: String,
    pub event_id: Option<String>,
    pub source: Option<String>,
    pub stream_key: Option<String>,
    pub stream_seq: Option<u64>,
    pub created_at: Timestamp,
}
