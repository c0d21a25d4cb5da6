//! The messages of the queue. This module writes the JSON that a posted event travels in, and reads what comes out: a
//! posted event (ENVELOPE), an event that PL/SQL reported, or a line of a log. It is pure.
//!
//! What PL/SQL sends has passed no door of ours, so everything in it is checked here; what cannot be read becomes a
//! dead letter, whole and with the reason (law 6), and never stops the others.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::domain::canonical::{canonical, hash_canonical};
use crate::domain::door::{format_traceparent, parse_traceparent, trace_id_hex};
use crate::domain::event::{
    Accepted, Envelope, IdOrigin, PLSQL, PayloadHash, TraceContext, ordered_at,
};
use crate::domain::ids::{
    EventId, EventType, IdempotencyKey, ProcessId, Source, StreamKey, TenantId,
};
use crate::domain::log_row::LogRow;
use crate::domain::report::{ReportKind, log_rows};
use crate::domain::time::Timestamp;

/// The type of a message that carries a whole posted event.
pub(super) const ENVELOPE: &str = "ENVELOPE";
/// The type of a message that is a line of a log, or several.
const LOG: &str = "LOG";

/// Where positions begin to count: 2020-01-01T00:00:00Z. With 51 bits of microseconds they last until 2091.
const POSITION_EPOCH_US: i64 = 1_577_836_800_000_000;
/// Bits of a position that tell messages of one microsecond apart.
const POSITION_MESSAGE_BITS: u32 = 12;

/// A message as the queue gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    /// 32 hexadecimal digits.
    pub(super) msgid: String,
    /// How often it was rolled back.
    pub(super) attempts: i64,
    pub(super) event_id: String,
    pub(super) event_type: String,
    pub(super) process_id: String,
    pub(super) tenant_id: String,
    /// The clock of the database when it was enqueued.
    pub(super) timestamp_utc: Timestamp,
    pub(super) payload: String,
}

/// What a message turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Read {
    Event(Box<Accepted>),
    Logs(Vec<LogRow>),
    Undecodable(String),
}

/// A posted event on its way, with what its acceptance decided.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Carried<'a> {
    stream_seq: u64,
    received_at_utc: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    payload_hash: String,
    trace_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    /// The trace began with this event, and is recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    trace_begins: bool,
    /// `door` where the id was made here; `caller` and absent: the caller's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id_origin: Option<String>,
    #[serde(borrow)]
    envelope: Native<'a>,
}

/// The native envelope.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Native<'a> {
    event_id: String,
    tenant_id: String,
    source: String,
    r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_utc: Option<String>,
    schema_version: u32,
    stream_key: String,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// An event that PL/SQL reported: `data` is the body as `/internal/…` takes it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reported<'a> {
    stream_seq: Option<u64>,
    run_id: Option<String>,
    occurred_at: Option<String>,
    traceparent: Option<String>,
    correlation_id: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The place of a message among all: rises with the time of its acceptance, and is the same whenever it is read.
pub(super) fn position(accepted_at: Timestamp, msgid: &str) -> i64 {
    let micros = accepted_at.micros().saturating_sub(POSITION_EPOCH_US).max(0);
    let hash = Sha256::digest(msgid);
    let low = i64::from(u16::from_be_bytes([hash[0], hash[1]]) >> (16 - POSITION_MESSAGE_BITS));
    micros.saturating_mul(1 << POSITION_MESSAGE_BITS).saturating_add(low)
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The way back. None: it is no hexadecimal text of `N` bytes.
pub(super) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// The JSON that a posted event travels in.
///
/// # Errors
/// When the payload is no JSON: a door has let it through that should not.
pub(super) fn carry(
    envelope: &Envelope,
    stream_seq: u64,
    received_at: Timestamp,
) -> Result<String, serde_json::Error> {
    let trace = &envelope.trace;
    let carried = Carried {
        stream_seq,
        received_at_utc: received_at.to_string(),
        idempotency_key: envelope.key.as_ref().map(|key| key.as_str().to_string()),
        payload_hash: hex(&envelope.hash.0),
        trace_id: trace_id_hex(trace),
        // One that began here has no parent, and its traceparent would be none that others take.
        traceparent: (trace.parent_id != [0; 8])
            .then(|| format_traceparent(trace, trace.parent_id)),
        trace_begins: trace.sampled && trace.parent_id == [0; 8],
        id_origin: match envelope.id_origin {
            IdOrigin::Caller => None,
            IdOrigin::Door => Some("door".to_string()),
        },
        envelope: Native {
            event_id: envelope.event_id.as_str().to_string(),
            tenant_id: envelope.tenant.as_str().to_string(),
            source: envelope.source.as_str().to_string(),
            r#type: envelope.event_type.as_str().to_string(),
            timestamp_utc: envelope.occurred_at.map(|at| at.to_string()),
            schema_version: envelope.schema_version,
            stream_key: envelope.stream.as_str().to_string(),
            payload: serde_json::from_str(&envelope.payload)?,
        },
    };
    serde_json::to_string(&carried)
}

/// How urgent a posted event is in the queue: as urgent as if PL/SQL had reported it. Smaller goes first.
pub(super) fn priority(event_type: &str) -> i64 {
    match ReportKind::of_event_type(event_type) {
        Some(ReportKind::Error) => 1,
        Some(ReportKind::Complete) => 2,
        Some(ReportKind::Start) => 3,
        _ => 5,
    }
}

/// Reads a message. `retention`: how far back an event's own time may lie (law 3).
pub(super) fn read(raw: &Raw, retention: Duration) -> Read {
    let read = match raw.event_type.as_str() {
        ENVELOPE => posted(raw, retention).map(|event| Read::Event(Box::new(event))),
        LOG => logs(raw).map(Read::Logs),
        _ => reported(raw, retention).map(|event| Read::Event(Box::new(event))),
    };
    read.unwrap_or_else(Read::Undecodable)
}

/// What of a message is worth keeping where it cannot be read.
pub(super) fn whole(raw: &Raw) -> Vec<u8> {
    serde_json::json!({
        "msgid": raw.msgid,
        "event_id": raw.event_id,
        "event_type": raw.event_type,
        "process_id": raw.process_id,
        "tenant_id": raw.tenant_id,
        "timestamp_utc": raw.timestamp_utc.to_string(),
        "payload": raw.payload,
    })
    .to_string()
    .into_bytes()
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn posted(raw: &Raw, retention: Duration) -> Result<Accepted, String> {
    let carried: Carried<'_> = serde_json::from_str(&raw.payload).map_err(words)?;
    let native = &carried.envelope;
    let received_at = moment("receivedAtUtc", &carried.received_at_utc)?;
    let occurred_at =
        native.timestamp_utc.as_deref().map(|text| moment("timestampUtc", text)).transpose()?;
    let trace_id = from_hex(&carried.trace_id).ok_or("traceId is no trace id")?;
    let trace = carried
        .traceparent
        .as_deref()
        .and_then(parse_traceparent)
        .unwrap_or(TraceContext { trace_id, parent_id: [0; 8], sampled: carried.trace_begins });
    let envelope = Envelope {
        tenant: TenantId::parse(&native.tenant_id).map_err(words)?,
        event_id: EventId::parse(&native.event_id).map_err(words)?,
        id_origin: match carried.id_origin.as_deref() {
            Some("door") => IdOrigin::Door,
            _ => IdOrigin::Caller,
        },
        source: Source::parse(&native.source).map_err(words)?,
        event_type: EventType::parse(&native.r#type).map_err(words)?,
        stream: StreamKey::parse(&native.stream_key).map_err(words)?,
        occurred_at,
        schema_version: native.schema_version,
        payload: native.payload.get().into(),
        key: carried
            .idempotency_key
            .as_deref()
            .map(IdempotencyKey::parse)
            .transpose()
            .map_err(words)?,
        hash: PayloadHash(from_hex(&carried.payload_hash).ok_or("payloadHash is no hash")?),
        trace,
    };
    if envelope.tenant.as_str() != raw.tenant_id {
        return Err("tenant_id is not that of the envelope".to_string());
    }
    Ok(accepted(raw, carried.stream_seq, received_at, envelope, retention))
}

fn reported(raw: &Raw, retention: Duration) -> Result<Accepted, String> {
    let reported: Reported<'_> = serde_json::from_str(&raw.payload).map_err(words)?;
    let stream_seq = reported.stream_seq.filter(|seq| *seq > 0).ok_or("streamSeq is not there")?;
    // A word that we don't know is a type that we don't know: a dead letter that keeps its number.
    let event_type = match raw.event_type.as_str() {
        "STARTED" => ReportKind::Start.event_type().to_string(),
        "HEARTBEAT" => ReportKind::Heartbeat.event_type().to_string(),
        "PROGRESS" => ReportKind::Progress.event_type().to_string(),
        "COMPLETED" => ReportKind::Complete.event_type().to_string(),
        "ERROR" => ReportKind::Error.event_type().to_string(),
        other => format!("process.{}", other.to_ascii_lowercase()),
    };
    let occurred_at =
        reported.occurred_at.as_deref().map(|text| moment("occurredAt", text)).transpose()?;
    let process = ProcessId::parse(&raw.process_id).map_err(words)?;
    let event_id = EventId::parse(&raw.event_id).map_err(words)?;
    let source = Source::parse(PLSQL).map_err(words)?;
    let event_type = EventType::parse(&event_type).map_err(words)?;
    let stream = process.stream();
    let payload = payload_of(&reported)?;
    let hash = match canonical(&payload) {
        Ok(text) => hash_canonical(&source, &event_type, Some(&stream), 1, text.as_bytes()),
        // Its payload will be refused when it is applied; until then any hash tells it apart.
        Err(_) => PayloadHash(Sha256::digest(payload.as_bytes()).into()),
    };
    let trace = reported
        .traceparent
        .as_deref()
        .and_then(parse_traceparent)
        .unwrap_or_else(|| trace_of(event_id.as_str()));
    let envelope = Envelope {
        tenant: TenantId::parse(&raw.tenant_id).map_err(words)?,
        event_id,
        id_origin: IdOrigin::Door,
        source,
        event_type,
        stream,
        occurred_at,
        schema_version: 1,
        payload: payload.into(),
        key: None,
        hash,
        trace,
    };
    Ok(accepted(raw, stream_seq, raw.timestamp_utc, envelope, retention))
}

/// The payload of a report: its body, with the run and the correlation that travel beside it.
fn payload_of(reported: &Reported<'_>) -> Result<String, String> {
    let data = reported.data.map_or("{}", RawValue::get);
    if reported.run_id.is_none() && reported.correlation_id.is_none() {
        return Ok(data.to_string());
    }
    let Ok(mut members) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(data)
    else {
        // It is no object: what is wrong with it is said when it is applied.
        return Ok(data.to_string());
    };
    for (name, value) in
        [("run_id", &reported.run_id), ("correlation_id", &reported.correlation_id)]
    {
        if let Some(value) = value {
            members.entry(name).or_insert_with(|| value.as_str().into());
        }
    }
    serde_json::to_string(&members).map_err(words)
}

fn logs(raw: &Raw) -> Result<Vec<LogRow>, String> {
    let tenant = TenantId::parse(&raw.tenant_id).map_err(words)?;
    let process = ProcessId::parse(&raw.process_id).map_err(words)?;
    let reported: Reported<'_> = serde_json::from_str(&raw.payload).map_err(words)?;
    let data = reported.data.map_or("{}", RawValue::get);
    log_rows(&tenant, Some(process), data.as_bytes(), raw.timestamp_utc).map_err(words)
}

fn accepted(
    raw: &Raw,
    stream_seq: u64,
    received_at: Timestamp,
    envelope: Envelope,
    retention: Duration,
) -> Accepted {
    let (ordered_at, clock_skew) = ordered_at(envelope.occurred_at, received_at, retention);
    Accepted {
        position: position(raw.timestamp_utc, &raw.msgid),
        stream_seq,
        received_at,
        ordered_at,
        clock_skew,
        envelope,
    }
}

fn moment(name: &str, text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| format!("{name} is no time: {text:?}"))
}

/// A trace that begins with an event, the same whenever it is read.
fn trace_of(event_id: &str) -> TraceContext {
    let hash = Sha256::digest(event_id.as_bytes());
    let mut trace_id = [0; 16];
    trace_id.copy_from_slice(&hash[..16]);
    // Never all zero.
    trace_id[15] |= 1;
    TraceContext { trace_id, parent_id: [0; 8], sampled: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::log_row::Level;
    use crate::domain::process::mark;

    const MONTH: Duration = Duration::from_secs(30 * 86_400);

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    fn raw(event_type: &str, payload: &str) -> Raw {
        Raw {
            msgid: "07".repeat(16),
            attempts: 0,
            event_id: "6F1E0C".into(),
            event_type: event_type.into(),
            process_id: "nightly".into(),
            tenant_id: "acme".into(),
            timestamp_utc: at("2026-01-28T10:00:00.000001Z"),
            payload: payload.into(),
        }
    }

    fn event(raw: &Raw) -> Accepted {
        match read(raw, MONTH) {
            Read::Event(event) => *event,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(raw: &Raw) -> String {
        match read(raw, MONTH) {
            Read::Undecodable(problem) => problem,
            other => panic!("{other:?}"),
        }
    }

    fn envelope() -> Envelope {
        Envelope {
            tenant: TenantId::parse("acme").unwrap(),
            event_id: EventId::parse("b2c6f1a9-2c2a-4d2d-9b7b-0b5f2a0a67d1").unwrap(),
            id_origin: IdOrigin::Caller,
            source: Source::parse("orders-api").unwrap(),
            event_type: EventType::parse("OrderCreated").unwrap(),
            stream: StreamKey::parse("order 1/ä").unwrap(),
            occurred_at: Some(at("2026-01-28T09:59:00.5Z")),
            schema_version: 7,
            payload: r#"{"n":1.0, "t":"ß"}"#.into(),
            key: Some(IdempotencyKey::parse("k 1").unwrap()),
            hash: PayloadHash([9; 32]),
            trace: TraceContext { trace_id: [7; 16], parent_id: [3; 8], sampled: true },
        }
    }

    #[test]
    fn a_posted_event_comes_out_of_the_queue_as_it_went_in() {
        let received = at("2026-01-28T10:00:00.123456Z");
        for id_origin in [IdOrigin::Caller, IdOrigin::Door] {
            for (key, occurred) in [(envelope().key, envelope().occurred_at), (None, None)] {
                let sent = Envelope { id_origin, key, occurred_at: occurred, ..envelope() };
                let got = event(&raw(ENVELOPE, &carry(&sent, 4, received).unwrap()));
                assert_eq!(got.envelope, sent, "byte by byte, the payload too");
                assert_eq!((got.stream_seq, got.received_at), (4, received));
                assert_eq!(got.ordered_at, occurred.unwrap_or(received));
            }
        }
        for sampled in [false, true] {
            let mut began_here = envelope();
            began_here.trace.parent_id = [0; 8];
            began_here.trace.sampled = sampled;
            let got = event(&raw(ENVELOPE, &carry(&began_here, 1, received).unwrap()));
            assert_eq!(got.envelope.trace, began_here.trace);
        }
    }

    #[test]
    fn what_plsql_reports_is_the_event_that_the_api_would_have_made_of_it() {
        for (word, event_type) in [
            ("STARTED", "process.started"),
            ("HEARTBEAT", "process.heartbeat"),
            ("PROGRESS", "process.progress"),
            ("COMPLETED", "process.completed"),
            ("ERROR", "process.failed"),
        ] {
            let payload = r#"{"streamSeq":3,"source":"plsql","runId":"R1","occurredAt":"2026-01-28T09:59:59Z",
                "traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","correlationId":"C1","data":{}}"#;
            let got = event(&raw(word, payload));
            assert_eq!(got.envelope.event_type.as_str(), event_type);
            assert_eq!(got.envelope.source.as_str(), "plsql");
            assert_eq!(got.envelope.stream.as_str(), "nightly");
            assert_eq!((got.stream_seq, got.ordered_at), (3, at("2026-01-28T09:59:59Z")));
            assert_eq!(got.received_at, at("2026-01-28T10:00:00.000001Z"), "the database's clock");
            assert!(got.envelope.trace.sampled);
            assert!(got.envelope.payload.contains(r#""run_id":"R1""#), "{}", got.envelope.payload);
            assert!(got.envelope.payload.contains(r#""correlation_id":"C1""#));
            assert!(mark::read(&got).unwrap().is_some(), "{word} drives its process");
        }
    }

    #[test]
    fn an_own_run_id_in_the_body_wins_and_a_body_of_another_kind_is_left_alone() {
        let got = event(&raw("PROGRESS", r#"{"streamSeq":1,"runId":"R1","data":{"run_id":"R2"}}"#));
        assert_eq!(&*got.envelope.payload, r#"{"run_id":"R2"}"#);
        let got = event(&raw("PROGRESS", r#"{"streamSeq":1,"runId":"R1","data":[1]}"#));
        assert_eq!(&*got.envelope.payload, "[1]");
        let got = event(&raw("HEARTBEAT", r#"{"streamSeq":1}"#));
        assert_eq!(&*got.envelope.payload, "{}");
        assert_ne!(got.envelope.trace.trace_id, [0; 16]);
    }

    #[test]
    fn an_unknown_word_keeps_its_number_and_becomes_a_dead_letter_when_it_is_applied() {
        let got = event(&raw("EXPLODED", r#"{"streamSeq":9,"data":{}}"#));
        assert_eq!(got.envelope.event_type.as_str(), "process.exploded");
        assert_eq!(got.stream_seq, 9);
        mark::read(&got).unwrap_err();
    }

    #[test]
    fn a_log_message_becomes_log_rows() {
        let data = r#"{"streamSeq":null,"data":[{"level":"WARN","message":"a"},{"message":"b"}]}"#;
        let Read::Logs(rows) = read(&raw("LOG", data), MONTH) else { panic!() };
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].level, &*rows[0].message), (Level::Warn, "a"));
        assert_eq!(rows[1].logged_at, at("2026-01-28T10:00:00.000001Z"));
        assert_eq!((rows[1].tenant.as_str(), rows[1].process.as_str()), ("acme", "nightly"));
        assert!(
            refusal(&raw("LOG", r#"{"data":{"level":"LOUD","message":"a"}}"#)).contains("level")
        );
    }

    #[test]
    fn what_cannot_be_read_says_why_and_is_kept_whole() {
        for (message, word) in [
            (raw("PROGRESS", "no json"), "expected"),
            (raw("PROGRESS", r#"{"data":{}}"#), "streamSeq"),
            (raw("PROGRESS", r#"{"streamSeq":0}"#), "streamSeq"),
            (raw("PROGRESS", r#"{"streamSeq":1,"occurredAt":"soon"}"#), "occurredAt"),
            (Raw { tenant_id: String::new(), ..raw("PROGRESS", r#"{"streamSeq":1}"#) }, "tenantId"),
            (
                Raw { process_id: String::new(), ..raw("PROGRESS", r#"{"streamSeq":1}"#) },
                "process_id",
            ),
            (raw(ENVELOPE, "{}"), "missing field"),
            (raw(ENVELOPE, ""), "EOF"),
        ] {
            assert!(refusal(&message).contains(word), "{}", refusal(&message));
            let kept: serde_json::Value = serde_json::from_slice(&whole(&message)).unwrap();
            assert_eq!(kept["payload"], message.payload.as_str());
        }
        let mut other = raw(ENVELOPE, &carry(&envelope(), 1, at("2026-01-28T10:00:00Z")).unwrap());
        other.tenant_id = "stranger".into();
        assert!(refusal(&other).contains("tenant_id"), "a tenant cannot post for another");
    }

    #[test]
    fn positions_rise_with_time_and_stay_the_same() {
        let (early, late) = (at("2026-01-28T10:00:00Z"), at("2026-01-28T10:00:00.000001Z"));
        assert!(position(early, "01") < position(late, "00"));
        assert_eq!(position(early, "01"), position(early, "01"));
        assert_ne!(position(early, "01"), position(early, "02"));
        assert!(position(at("2090-12-31T00:00:00Z"), "ff") > 0);
    }

    #[test]
    fn urgency_is_that_of_the_report() {
        let of = [
            "process.failed",
            "process.completed",
            "process.started",
            "process.progress",
            "Ordered",
        ];
        assert_eq!(of.map(priority), [1, 2, 3, 5, 5]);
    }

    #[test]
    fn hexadecimal_digits_come_back() {
        assert_eq!(from_hex::<3>(&hex(&[0, 171, 255])), Some([0, 171, 255]));
        assert_eq!(from_hex::<3>("00abf"), None);
        assert_eq!(from_hex::<2>("zz00"), None);
    }
}
