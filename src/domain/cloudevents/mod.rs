//! The door for `CloudEvents` 1.0.2. This module reads the structured, the binary and the batched content mode of the
//! HTTP binding, and turns each event into the same [`Envelope`] as the native door.
//!
//! `id` becomes the event's id, `time` its own time, `subject` its stream (the source where it has none), `data` its
//! payload. `data_base64` stays what it is, a JSON string. The extensions `tenantid`, `idempotencykey` and
//! `traceparent` count where the request's token and header fields do not say it already.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::canonical::{Object, canonical, push_string};
use super::door::{BATCH_EVENTS_MAX, Draft, parse_traceparent, traceparent};
use super::event::Envelope;
use super::fields::{DoorError, Fields, elements, event_id, utf8};
use super::ids::{EventType, IdError, IdempotencyKey, Source, StreamKey, TenantId};
use super::time::Timestamp;

/// The version of the specification that this door understands.
pub const SPEC_VERSION: &str = "1.0";

/// What the names of binary mode's header fields begin with.
pub const HEADER_PREFIX: &str = "ce-";

/// The attributes that mean something here. Others are ignored.
const ATTRIBUTES: [&str; 9] = [
    "id",
    "source",
    "specversion",
    "type",
    "time",
    "subject",
    "tenantid",
    "idempotencykey",
    "traceparent",
];

/// The members of structured mode in which an error can be named.
const MEMBERS: [&str; 11] = [
    "id",
    "source",
    "specversion",
    "type",
    "time",
    "subject",
    "tenantid",
    "idempotencykey",
    "traceparent",
    "data",
    "data_base64",
];

/// Reads one event in structured mode (`application/cloudevents+json`). `key` and `trace` are what the request's
/// header fields say, the latter as it was sent; `fresh` makes the id of a new trace.
///
/// # Errors
/// [`DoorError`] names the attribute that must be mended.
pub fn structured(
    tenant: &TenantId,
    body: &[u8],
    key: Option<IdempotencyKey>,
    trace: Option<&str>,
    fresh: impl FnOnce() -> [u8; 16],
) -> Result<Envelope, DoorError> {
    one(tenant, utf8(body)?, key, trace, fresh)
}

/// Reads a batch (`application/cloudevents-batch+json`): one result for each event, in their order.
///
/// # Errors
/// [`DoorError`] where the body is no array of JSON values, or holds more than [`BATCH_EVENTS_MAX`].
pub fn batch(
    tenant: &TenantId,
    body: &[u8],
    trace: Option<&str>,
    mut fresh: impl FnMut() -> [u8; 16],
) -> Result<Vec<Result<Envelope, DoorError>>, DoorError> {
    let events = elements(utf8(body)?, "events", BATCH_EVENTS_MAX)?;
    Ok(events.into_iter().map(|event| one(tenant, event, None, trace, &mut fresh)).collect())
}

/// Reads one event in binary mode: attributes in `ce-*` header fields, the body is the data. `headers` may hold all
/// fields of the request.
///
/// # Errors
/// [`DoorError`] names the attribute that must be mended, or `data`.
pub fn binary<'h>(
    tenant: &TenantId,
    headers: impl IntoIterator<Item = (&'h str, &'h str)>,
    body: &[u8],
    key: Option<IdempotencyKey>,
    trace: Option<&str>,
    fresh: impl FnOnce() -> [u8; 16],
) -> Result<Envelope, DoorError> {
    let mut values: [Option<Cow<'h, str>>; ATTRIBUTES.len()] = Default::default();
    let mut content_type = None;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("content-type") {
            content_type = Some(value);
        }
        let Some((prefix, name)) = name.split_at_checked(HEADER_PREFIX.len()) else { continue };
        if !prefix.eq_ignore_ascii_case(HEADER_PREFIX) {
            continue;
        }
        let attribute = ATTRIBUTES.iter().zip(&mut values);
        if let Some((&field, slot)) =
            attribute.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            if slot.is_some() {
                return Err(DoorError::invalid(field, "is there twice"));
            }
            *slot = Some(header_value(field, value)?);
        }
    }
    let payload = binary_data(content_type, body)?;
    let checked = canonical(&payload).map_err(|problem| match problem {
        super::canonical::CanonicalError::NotJson { .. } => DoorError::NotJson(problem.to_string()),
        _ => DoorError::invalid("data", problem.to_string()),
    })?;
    let get = |field: &'static str| {
        let at = ATTRIBUTES.iter().position(|known| *known == field);
        let value = at.and_then(|at| values[at].clone());
        Ok(value.filter(|text| !text.is_empty()))
    };
    envelope(tenant, get, (&payload, checked.as_bytes()), key, trace, fresh)
}

fn one(
    tenant: &TenantId,
    text: &str,
    key: Option<IdempotencyKey>,
    trace: Option<&str>,
    fresh: impl FnOnce() -> [u8; 16],
) -> Result<Envelope, DoorError> {
    let object = Object::parse(text).map_err(|error| DoorError::object(error, &MEMBERS, "body"))?;
    let fields = Fields::of(&object);
    let data = object.raw("data").zip(object.canonical("data"));
    let data = match fields.text("data_base64")? {
        None => data.unwrap_or(("{}", b"{}")),
        Some(_) if data.is_some() => {
            return Err(DoorError::invalid("data_base64", "stands beside data"));
        }
        Some(base64) if BASE64.decode(base64.as_bytes()).is_err() => {
            return Err(DoorError::invalid("data_base64", "is not base64"));
        }
        Some(_) => object
            .raw("data_base64")
            .zip(object.canonical("data_base64"))
            .expect("it was read a moment ago"),
    };
    envelope(tenant, |field| fields.text(field), data, key, trace, fresh)
}

/// Maps the attributes that `get` finds. `data` is the payload and its canonical form.
fn envelope<'a>(
    tenant: &TenantId,
    get: impl Fn(&'static str) -> Result<Option<Cow<'a, str>>, DoorError>,
    (payload, canonical): (&str, &[u8]),
    key: Option<IdempotencyKey>,
    trace: Option<&str>,
    fresh: impl FnOnce() -> [u8; 16],
) -> Result<Envelope, DoorError> {
    if required("specversion", get("specversion")?)? != SPEC_VERSION {
        return Err(DoorError::invalid("specversion", "is not 1.0"));
    }
    if get("tenantid")?.is_some_and(|named| named != tenant.as_str()) {
        return Err(DoorError::TenantMismatch);
    }
    let occurred_at = match get("time")? {
        None => None,
        Some(text) => Some(
            Timestamp::parse(&text)
                .ok_or_else(|| DoorError::invalid("time", "is not a time of RFC 3339"))?,
        ),
    };
    let key = match key {
        None => get("idempotencykey")?.map(|t| id("idempotencykey", &t, IdempotencyKey::parse)),
        given => given.map(Ok),
    }
    .transpose()?;
    let extension = get("traceparent")?;
    let trace = trace.filter(|text| parse_traceparent(text).is_some()).or(extension.as_deref());
    let subject = get("subject")?;
    Draft {
        tenant,
        event_id: id("id", &required("id", get("id")?)?, event_id)?,
        source: id("source", &required("source", get("source")?)?, Source::parse)?,
        event_type: id("type", &required("type", get("type")?)?, EventType::parse)?,
        stream: subject.map(|text| id("subject", &text, StreamKey::parse)).transpose()?,
        stream_field: "subject",
        occurred_at,
        schema_version: 1,
        payload,
        canonical,
        key,
        trace: traceparent(trace, fresh),
    }
    .envelope()
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, DoorError> {
    value.ok_or_else(|| DoorError::invalid(field, "is missing"))
}

fn id<T>(
    field: &'static str,
    text: &str,
    parse: fn(&str) -> Result<T, IdError>,
) -> Result<T, DoorError> {
    parse(text).map_err(|error| DoorError::id(field, error))
}

/// The data of binary mode as JSON: JSON as it is, text as a string, anything else as a string of base64.
fn binary_data<'b>(content_type: Option<&str>, body: &'b [u8]) -> Result<Cow<'b, str>, DoorError> {
    if body.is_empty() {
        return Ok(Cow::Borrowed("{}"));
    }
    let media = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    let media = media.trim().to_ascii_lowercase();
    // Without a content type, data is JSON, as in structured mode.
    if matches!(media.as_str(), "" | "application/json" | "text/json") || media.ends_with("+json") {
        // Blanks around JSON are no part of it.
        let text = utf8(body)?;
        return Ok(Cow::Borrowed(text.trim_matches([' ', '\t', '\r', '\n'])));
    }
    let is_text =
        media.starts_with("text/") || media == "application/xml" || media.ends_with("+xml");
    let mut string = Vec::with_capacity(body.len() + 2);
    match std::str::from_utf8(body) {
        Ok(text) if is_text => {
            if memchr::memchr(0, body).is_some() {
                return Err(DoorError::invalid("data", "holds U+0000"));
            }
            push_string(&mut string, text);
        }
        _ => push_string(&mut string, &BASE64.encode(body)),
    }
    Ok(Cow::Owned(String::from_utf8(string).expect("made of text")))
}

/// The value of an attribute from its header field: unquoted, then percent-decoded once (HTTP binding, 3.1.3.2).
fn header_value<'h>(field: &'static str, value: &'h str) -> Result<Cow<'h, str>, DoorError> {
    let value = value.trim();
    let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let unquoted = match quoted {
        Some(inner) if inner.contains('\\') => {
            let mut letters = inner.chars();
            Cow::Owned(
                std::iter::from_fn(|| match letters.next()? {
                    '\\' => letters.next(),
                    letter => Some(letter),
                })
                .collect::<String>(),
            )
        }
        Some(inner) => Cow::Borrowed(inner),
        None => Cow::Borrowed(value),
    };
    if !unquoted.contains('%') {
        return Ok(unquoted);
    }
    let mut bytes = Vec::with_capacity(unquoted.len());
    let mut rest = unquoted.as_bytes();
    while let [byte, after @ ..] = rest {
        let nibble = |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (*byte, nibble(0), nibble(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits"));
                rest = &after[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    let text = String::from_utf8(bytes);
    text.map(Cow::Owned)
        .map_err(|_| DoorError::invalid(field, "is not UTF-8 once it is percent-decoded"))
}

#[cfg(test)]
mod tests;
