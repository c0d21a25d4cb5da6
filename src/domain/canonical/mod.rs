//! One text for every way to write the same JSON, so that a retry can be told from another request. This module
//! writes the canonical form of RFC 8785 and takes the hash of what an event says.
//!
//! The text is read once and written straight into the output: no tree is built, an object whose members are in
//! order already costs no move, and an object that is not is put in order where it stands. What two readers could
//! understand differently is refused: a member name that occurs twice (compared after unescaping), U+0000, half a
//! surrogate pair, and nesting beyond [`DEPTH_MAX`]. How numbers are written, and why not every number is rounded
//! to a double, is told in `number.rs`.

mod number;
mod object;
mod writer;

use ring::digest;

use super::event::PayloadHash;
use super::ids::{EventType, Source, StreamKey};

pub(crate) use object::compact;
pub use object::{Object, ObjectError};
use writer::Writer;
pub(crate) use writer::push_string;

/// How deep arrays and objects may nest. No payload of use comes near it, and the stack of a poll loop bears it.
pub const DEPTH_MAX: usize = 128;

/// Why a text has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// It breaks the grammar of RFC 8259 at this byte.
    #[error("{problem} at byte {at}")]
    NotJson { at: usize, problem: &'static str },
    /// An object holds this member name twice, so that readers differ in what it says.
    #[error("holds the member name {0:?} twice")]
    DuplicateMember(String),
    /// A string holds U+0000, which no store keeps.
    #[error("holds U+0000")]
    Nul,
    /// A string holds half a surrogate pair, which is no character.
    #[error("holds half of a surrogate pair")]
    LoneSurrogate,
    /// It nests deeper than [`DEPTH_MAX`].
    #[error("is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// A number's exponent has so many digits that no arithmetic holds it.
    #[error("holds a number whose exponent is out of bounds")]
    Exponent,
}

/// The canonical form of `text`, which must be one JSON value.
///
/// # Errors
/// [`CanonicalError`] where `text` is not JSON, or says what readers could understand differently.
pub fn canonical(text: &str) -> Result<String, CanonicalError> {
    let mut writer = Writer::new(text);
    writer.document()?;
    Ok(utf8(writer.out))
}

/// The hash by which a repeat of an event is told from another event that uses the same key.
///
/// It is SHA-256 over the canonical form of the object `{payload, schemaVersion, source, streamKey, type}`. The
/// event's id and time are left out, because a retry may make them anew.
///
/// # Errors
/// [`CanonicalError`] where the payload has no canonical form.
pub fn hash(
    source: &Source,
    event_type: &EventType,
    stream: &StreamKey,
    schema_version: u32,
    payload: &str,
) -> Result<PayloadHash, CanonicalError> {
    let mut writer = Writer::new(payload);
    writer.document()?;
    Ok(hash_canonical(source, event_type, Some(stream), schema_version, &writer.out))
}

/// As [`hash`], of a payload whose canonical form is known already. Where the stream's key was made at the door, it
/// is None: a retry makes another one and must still be known as a retry.
pub(crate) fn hash_canonical(
    source: &Source,
    event_type: &EventType,
    stream: Option<&StreamKey>,
    schema_version: u32,
    payload: &[u8],
) -> PayloadHash {
    // The names in the order of RFC 8785: payload, schemaVersion, source, streamKey, type.
    let mut tail = Vec::with_capacity(160);
    tail.extend_from_slice(b",\"schemaVersion\":");
    tail.extend_from_slice(schema_version.to_string().as_bytes());
    tail.extend_from_slice(b",\"source\":");
    push_string(&mut tail, source.as_str());
    if let Some(stream) = stream {
        tail.extend_from_slice(b",\"streamKey\":");
        push_string(&mut tail, stream.as_str());
    }
    tail.extend_from_slice(b",\"type\":");
    push_string(&mut tail, event_type.as_str());
    tail.push(b'}');

    let mut sha = digest::Context::new(&digest::SHA256);
    sha.update(b"{\"payload\":");
    sha.update(payload);
    sha.update(&tail);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(sha.finish().as_ref());
    PayloadHash(bytes)
}

/// What was written is text: slices of text, cut at ASCII characters, and whole characters.
fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("made of whole characters")
}

#[cfg(test)]
mod tests;
