//! What the doors for events promise, whatever is posted. This module hands one body to the door that the input's first
//! byte names.
//!
//! * Nothing panics.
//! * What is accepted can be written down again in canonical form, and is then accepted as the same event with the same
//!   hash: a retry that was encoded anew is still known as a retry.

use sentinel::domain::canonical::{canonical, hash};
use sentinel::domain::cloudevents;
use sentinel::domain::door::{native, ndjson_lines};
use sentinel::domain::event::{Envelope, TraceContext};
use sentinel::domain::fields::DoorError;
use sentinel::domain::ids::{ProcessId, TenantId};
use sentinel::domain::log_row::LogRow;
use sentinel::domain::report::{
    MESSAGE_BYTES_MAX, ReportKind, internal, is_log, log_rows, posted_log_row,
};
use sentinel::domain::time::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

const TRACE: TraceContext = TraceContext { trace_id: [7; 16], parent_id: [0; 8], sampled: false };
const DOORS: u8 = 5;

fn tenant() -> TenantId {
    TenantId::parse("contoso").expect("it is a tenant")
}

/// Checks every promise with one input.
pub(crate) fn check(data: &[u8]) {
    let Some((&door, body)) = data.split_first() else { return };
    let (tenant, fresh) = (tenant(), || [7; 16]);
    match door % DOORS {
        0 => check_native(&tenant, native(&tenant, body, None, TRACE)),
        1 => {
            for (number, line) in ndjson_lines(body) {
                assert!(number > 0 && !line.is_empty() && !line.contains(&b'\n'));
                check_native(&tenant, native(&tenant, line, None, TRACE));
            }
        }
        2 => check_structured(&tenant, cloudevents::structured(&tenant, body, None, None, fresh)),
        3 => {
            let events = cloudevents::batch(&tenant, body, None, fresh).unwrap_or_default();
            events.into_iter().for_each(|event| check_structured(&tenant, event));
        }
        _ => {
            let (Some(&kind), Some(body)) = (body.first(), body.get(1..)) else { return };
            let kinds = ReportKind::ALL;
            check_report(&tenant, kinds[usize::from(kind) % kinds.len()], body);
            check_rows(&tenant, body);
        }
    }
}

/// The payload, written in canonical form.
fn canonical_payload(envelope: &Envelope) -> String {
    let text = canonical(&envelope.payload).expect("an accepted payload has a canonical form");
    assert_eq!(canonical(&text).as_deref(), Ok(text.as_str()), "the canonical form is its own");
    // Others read it, too. Its numbers may be beyond what they can hold, so those are not looked at.
    serde_json::from_str::<IgnoredAny>(&text).expect("the canonical form is JSON");
    text
}

/// What must be the same however an event was written.
fn essence(envelope: &Envelope) -> Envelope {
    Envelope { payload: Box::from(canonical_payload(envelope)), trace: TRACE, ..envelope.clone() }
}

fn check_hash(envelope: &Envelope) {
    let (source, kind, stream) = (&envelope.source, &envelope.event_type, &envelope.stream);
    let again = hash(source, kind, stream, envelope.schema_version, &envelope.payload);
    assert_eq!(again, Ok(envelope.hash), "the hash is that of what is kept");
    check_carried_row(envelope);
}

/// `members` as an object, with `payload` as its member `name`, as it stands.
fn with_payload(mut members: Value, name: &str, payload: &str, envelope: &Envelope) -> String {
    if let Some(key) = &envelope.key {
        let member = if name == "data" { "idempotencykey" } else { "idempotencyKey" };
        members[member] = json!(key.as_str());
    }
    let text = members.to_string();
    format!("{},\"{name}\":{payload}}}", &text[..text.len() - 1])
}

fn check_native(tenant: &TenantId, posted: Result<Envelope, DoorError>) {
    let Ok(envelope) = posted else { return };
    check_hash(&envelope);
    let mut members = json!({
        "eventId": envelope.event_id.as_str(),
        "source": envelope.source.as_str(),
        "type": envelope.event_type.as_str(),
        "streamKey": envelope.stream.as_str(),
        "schemaVersion": envelope.schema_version,
    });
    if let Some(time) = envelope.occurred_at {
        members["timestampUtc"] = json!(time.to_string());
    }
    let text = with_payload(members, "payload", &canonical_payload(&envelope), &envelope);
    let again = native(tenant, text.as_bytes(), None, TRACE);
    assert_eq!(again.map(|again| essence(&again)), Ok(essence(&envelope)), "{text}");
}

fn check_structured(tenant: &TenantId, posted: Result<Envelope, DoorError>) {
    let Ok(envelope) = posted else { return };
    check_hash(&envelope);
    let mut members = json!({
        "specversion": "1.0",
        "id": envelope.event_id.as_str(),
        "source": envelope.source.as_str(),
        "type": envelope.event_type.as_str(),
        "subject": envelope.stream.as_str(),
    });
    if let Some(time) = envelope.occurred_at {
        members["time"] = json!(time.to_string());
    }
    let text = with_payload(members, "data", &canonical_payload(&envelope), &envelope);
    let again = cloudevents::structured(tenant, text.as_bytes(), None, None, || [7; 16]);
    assert_eq!(again.map(|again| essence(&again)), Ok(essence(&envelope)), "{text}");
}

fn check_report(tenant: &TenantId, kind: ReportKind, body: &[u8]) {
    let fresh = || uuid::Uuid::from_u128(7 << 76 | 2 << 62);
    let Ok(envelope) = internal(tenant, kind, None, body, None, TRACE, fresh) else { return };
    canonical_payload(&envelope);
    assert_eq!(envelope.event_type.as_str(), kind.event_type());
    // The process is named by the header field now, where the body named it before.
    let process = ProcessId::parse(envelope.stream.as_str()).expect("a report is about a process");
    let again = |process: &ProcessId, payload: &str| {
        internal(tenant, kind, Some(process.clone()), payload.as_bytes(), None, TRACE, fresh)
            .map(|again| (again.stream.clone(), again.hash, canonical_payload(&again)))
    };
    let first = again(&process, &envelope.payload).expect("what was kept is accepted again");
    assert_eq!(again(&process, &first.2), Ok(first), "and in canonical form it is the same");
}

fn check_rows(tenant: &TenantId, body: &[u8]) {
    let process = ProcessId::parse("import-17").expect("it is a process");
    let received_at = Timestamp::from_micros(1_800_000_000_000_000);
    let Ok(rows) = log_rows(tenant, Some(process.clone()), body, received_at) else { return };
    serde_json::from_slice::<IgnoredAny>(body).expect("what is accepted is JSON, as it came");
    for row in rows {
        assert_eq!((&row.tenant, &row.process), (tenant, &process));
        check_row(&row);
    }
}

fn check_row(row: &LogRow) {
    if let Some(details) = &row.details {
        canonical(details).expect("details have a canonical form");
    }
    assert!(!row.message.is_empty() && row.message.len() <= MESSAGE_BYTES_MAX);
}

/// A log row that came by the door for events.
fn check_carried_row(envelope: &Envelope) {
    if !is_log(envelope) {
        return;
    }
    let received_at = Timestamp::from_micros(1_800_000_000_000_000);
    let Ok(row) = posted_log_row(envelope, received_at) else { return };
    assert_eq!(row.process.as_str(), envelope.stream.as_str());
    check_row(&row);
}
