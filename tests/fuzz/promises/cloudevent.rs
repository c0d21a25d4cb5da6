//! What the door for `CloudEvents` in header fields promises, whatever fields come. This module takes a head from the
//! input, line by line, and a body after an empty line.
//!
//! * Nothing panics.
//! * Neither the order of the fields nor the case of their names means anything.
//! * What is accepted is accepted as the same event when it is sent with every byte percent-encoded, and in structured
//!   mode.

use sentinel::domain::canonical::{canonical, hash};
use sentinel::domain::cloudevents::{binary, structured};
use sentinel::domain::door::{
    format_traceparent, idempotency_key, parse_traceparent, trace_id_hex,
};
use sentinel::domain::event::Envelope;
use sentinel::domain::fields::DoorError;
use sentinel::domain::ids::{IdempotencyKey, TenantId};
use serde_json::json;

type Field<'f> = (&'f str, &'f str);

/// Checks every promise with one input.
pub(crate) fn check(data: &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((data, &b""[..]), |at| (&data[..at], &data[at + 2..]));
    let Ok(head) = std::str::from_utf8(head) else { return };
    // A field's value as the front hands it on: no line ends, no blanks around it.
    let fields: Vec<Field<'_>> = head
        .split('\n')
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let get = |name: &str| fields.iter().find(|field| field.0 == name).map(|field| field.1);
    let trace = get("traceparent");
    let key = get("idempotency-key").and_then(|value| idempotency_key(value).ok());
    check_trace(trace);

    let tenant = TenantId::parse("contoso").expect("it is a tenant");
    let door = |fields: &[Field<'_>], body: &[u8]| {
        binary(&tenant, fields.iter().copied(), body, key.clone(), trace, || [7; 16])
    };
    let event = door(&fields, body);
    let upper: Vec<String> = fields.iter().map(|field| field.0.to_ascii_uppercase()).collect();
    let shouted: Vec<Field<'_>> =
        upper.iter().zip(&fields).map(|(name, field)| (name.as_str(), field.1)).collect();
    assert_eq!(door(&shouted, body), event, "the case of names means nothing");
    let media_types = fields.iter().filter(|field| field.0.eq_ignore_ascii_case("content-type"));
    if media_types.count() < 2 {
        let backwards: Vec<Field<'_>> = fields.iter().rev().copied().collect();
        assert_eq!(door(&backwards, body).ok(), event.as_ref().ok().cloned(), "nor does the order");
    }
    if let Ok(event) = event {
        check_hash(&event);
        check_encoded(&tenant, &event, key);
    }
}

fn check_trace(header: Option<&str>) {
    let Some(trace) = header.and_then(parse_traceparent) else { return };
    let text = format_traceparent(&trace, trace.parent_id);
    assert_eq!(parse_traceparent(&text), Some(trace), "{text}");
    assert_eq!(trace_id_hex(&trace).len(), 32);
}

fn check_hash(event: &Envelope) {
    let (source, kind, stream) = (&event.source, &event.event_type, &event.stream);
    let again = hash(source, kind, stream, event.schema_version, &event.payload);
    assert_eq!(again, Ok(event.hash), "the hash is that of what is kept");
}

/// The same, whatever way it came: with its payload in canonical form.
fn essence(event: Result<Envelope, DoorError>) -> Result<Envelope, DoorError> {
    event.map(|event| {
        let payload = canonical(&event.payload).expect("an accepted payload has a canonical form");
        Envelope { payload: payload.into(), ..event }
    })
}

fn check_encoded(tenant: &TenantId, event: &Envelope, key: Option<IdempotencyKey>) {
    let time = event.occurred_at.map(|time| time.to_string());
    let trace = format_traceparent(&event.trace, event.trace.parent_id);
    // All zero stands for no parent, and no header field can say that.
    let trace = parse_traceparent(&trace).map(|_| trace);
    let mut attributes = vec![
        ("specversion", "1.0"),
        ("id", event.event_id.as_str()),
        ("source", event.source.as_str()),
        ("type", event.event_type.as_str()),
        ("subject", event.stream.as_str()),
    ];
    attributes.extend(time.as_deref().map(|time| ("time", time)));
    // The field of the request goes before the extension of the event.
    let own_key = event.key.as_ref().map(IdempotencyKey::as_str).filter(|_| key.is_none());
    attributes.extend(own_key.map(|key| ("idempotencykey", key)));

    let encoded: Vec<(String, String)> = attributes
        .iter()
        .map(|(name, value)| {
            let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
            (format!("ce-{name}"), value)
        })
        .collect();
    let fields = encoded.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let payload = canonical(&event.payload).expect("an accepted payload has a canonical form");
    let fresh = || event.trace.trace_id;
    let again = binary(tenant, fields, payload.as_bytes(), key.clone(), trace.as_deref(), fresh);
    assert_eq!(essence(again), essence(Ok(event.clone())), "{encoded:?}");

    let members: serde_json::Map<String, serde_json::Value> =
        attributes.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let text = serde_json::Value::from(members).to_string();
    let text = format!("{},\"data\":{payload}}}", &text[..text.len() - 1]);
    let again = structured(tenant, text.as_bytes(), key, trace.as_deref(), fresh);
    assert_eq!(essence(again), essence(Ok(event.clone())), "{text}");
}
