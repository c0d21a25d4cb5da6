//! The names that users give to things, each a type of its own. This module parses them, once, at the doors.
//!
//! Every id is short text with a private field and one `parse`, so that a value of the type is a valid one.
//! Ids are unique within a tenant only. The length limits are those of every store, so that a name that one
//! store takes never fails in another.

use std::fmt;
use std::sync::Arc;

/// Why a text is not an id, in words that name the field and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct IdError {
    /// The name of the field as users know it.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

/// Refuses what no id may hold: nothing at all, too much, control characters.
fn check(field: &'static str, text: &str, chars_max: usize) -> Result<(), IdError> {
    let problem = if text.is_empty() {
        "is empty".to_string()
    } else if text.len() > chars_max && text.chars().count() > chars_max {
        format!("is longer than {chars_max} characters")
    } else if text.chars().any(char::is_control) {
        "holds a control character".to_string()
    } else {
        return Ok(());
    };
    Err(IdError { field, problem })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $field:literal, $max:literal, $extra:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest text of this kind, in characters.
            pub const CHARS_MAX: usize = $max;

            /// Takes `text` if it is a valid id of this kind.
            ///
            /// # Errors
            /// [`IdError`] names the field and the rule that the text breaks.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check($field, text, $max)?;
                let extra: fn(&str) -> Option<&'static str> = $extra;
                match extra(text) {
                    None => Ok(Self(Arc::from(text))),
                    Some(problem) => Err(IdError { field: $field, problem: problem.to_string() }),
                }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

fn anything(_: &str) -> Option<&'static str> {
    None
}

fn tenant_letters(text: &str) -> Option<&'static str> {
    let fine = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    (!fine).then_some("may hold only letters, digits, '.', '_' and '-'")
}

fn visible_ascii(text: &str) -> Option<&'static str> {
    (!text.bytes().all(|b| b.is_ascii_graphic()))
        .then_some("may hold only visible ASCII characters")
}

id!(
    /// Who owns the data: `[A-Za-z0-9._-]{1,50}`, always from the token, never from a URL.
    TenantId, "tenantId", 50, tenant_letters
);
id!(
    /// Names a stream within a tenant. A process's stream key is its process id.
    StreamKey, "streamKey", 200, anything
);
id!(
    /// Names a process within a tenant.
    ProcessId, "process_id", 100, anything
);
id!(
    /// Names an event within (tenant, source): a UUID in the native envelope, else 1-100 visible ASCII characters.
    EventId, "eventId", 100, visible_ascii
);
id!(
    /// Who sent an event.
    Source, "source", 200, anything
);
id!(
    /// What kind of event it is, such as `OrderCreated` or `process.started`.
    EventType, "type", 200, anything
);
id!(
    /// The caller's own name for one request, so that a retry has no second effect.
    IdempotencyKey, "idempotencyKey", 255, anything
);

impl TenantId {
    /// Whose messages are that are so broken that they name nobody: [`NO_TENANT`](super::dead_letter::NO_TENANT). It
    /// holds a letter that [`Self::parse`] refuses, so no token and no URL can make one; a door that lets an admin ask
    /// for it says so.
    pub fn unreadable() -> Self {
        Self(Arc::from(super::dead_letter::NO_TENANT))
    }
}

impl ProcessId {
    /// The stream that holds everything about this process.
    pub fn stream(&self) -> StreamKey {
        StreamKey(Arc::clone(&self.0))
    }
}

impl StreamKey {
    /// The process that this stream drives, if its key is short enough to be a process id.
    pub fn process(&self) -> Option<ProcessId> {
        ProcessId::parse(&self.0).ok()
    }
}

impl EventId {
    /// The id of an event that we number ourselves.
    pub fn from_uuid(uuid: uuid::Uuid) -> Self {
        Self(Arc::from(uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()) as &str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_short_plain_text() {
        assert_eq!(TenantId::parse("tenant-001").unwrap().as_str(), "tenant-001");
        for bad in ["", "a b", "ä", "x/y", &"x".repeat(51)] {
            assert!(TenantId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_tenant_of_unreadable_messages_cannot_be_named_from_outside() {
        let nobody = TenantId::unreadable();
        TenantId::parse(nobody.as_str()).unwrap_err();
    }

    #[test]
    fn lengths_count_characters_not_bytes() {
        assert_eq!(ProcessId::parse(&"ä".repeat(100)).unwrap().as_str().len(), 200);
        assert_eq!(
            ProcessId::parse(&"ä".repeat(101)).unwrap_err().to_string(),
            "process_id is longer than 100 characters"
        );
    }

    #[test]
    fn control_characters_are_refused_everywhere() {
        for bad in ["a\nb", "a\u{0}b", "\u{1b}[31m", "a\u{7f}"] {
            assert!(StreamKey::parse(bad).is_err(), "{bad:?}");
            assert!(EventId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
