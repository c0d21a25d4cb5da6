//! What the native door takes and refuses. This module is its specification.

use proptest::prelude::*;

use super::*;
use crate::domain::canonical;

const TRACE: TraceContext = TraceContext { trace_id: [7; 16], parent_id: [0; 8], sampled: false };
const ID: &str = "b2c6f1a9-2c2a-4d2d-9b7b-0b5f2a0a67d1";
const EXAMPLE: &str = r#"{"eventId":"b2c6f1a9-2c2a-4d2d-9b7b-0b5f2a0a67d1","tenantId":"contoso","source":"orders-api",
 "type":"OrderCreated","timestampUtc":"2026-02-26T14:22:31Z","schemaVersion":1,"streamKey":"order-184922",
 "payload":{"orderId":"184922"}}"#;

fn tenant() -> TenantId {
    TenantId::parse("contoso").unwrap()
}

fn take(body: &str) -> Result<Envelope, DoorError> {
    native(&tenant(), body.as_bytes(), None, TRACE)
}

/// An envelope with these members beside eventId and source.
fn with(members: &str) -> Result<Envelope, DoorError> {
    take(&format!(r#"{{"eventId":"{ID}","source":"s",{members}}}"#))
}

fn problem(result: Result<Envelope, DoorError>) -> String {
    result.expect_err("must be refused").to_string()
}

#[test]
fn the_envelope_of_the_contract_comes_in_whole() {
    let key = IdempotencyKey::parse("k").unwrap();
    let envelope = native(&tenant(), EXAMPLE.as_bytes(), Some(key.clone()), TRACE).unwrap();
    let payload = r#"{"orderId":"184922"}"#;
    let (source, event_type) =
        (Source::parse("orders-api").unwrap(), EventType::parse("OrderCreated").unwrap());
    let stream = StreamKey::parse("order-184922").unwrap();
    assert_eq!(
        envelope,
        Envelope {
            tenant: tenant(),
            event_id: EventId::parse(ID).unwrap(),
            id_origin: IdOrigin::Caller,
            hash: canonical::hash(&source, &event_type, &stream, 1, payload).unwrap(),
            source,
            event_type,
            stream,
            occurred_at: Timestamp::parse("2026-02-26T14:22:31Z"),
            schema_version: 1,
            payload: Box::from(payload),
            key: Some(key),
            trace: TRACE,
        }
    );
}

#[test]
fn what_is_absent_has_a_default() {
    for members in [
        r#""type":"T""#,
        r#""type":"T","tenantId":"","timestampUtc":"","streamKey":"","schemaVersion":null,"idempotencyKey":"""#,
        r#""type":"T","tenantId":null,"timestampUtc":null,"streamKey":null,"payload":{}"#,
        r#""type":"T","unknown":{"a":[1]},"schemaVersion":1.0"#,
    ] {
        let envelope = with(members).unwrap();
        assert_eq!(envelope.stream.as_str(), "s", "{members}");
        assert_eq!((envelope.occurred_at, envelope.schema_version), (None, 1), "{members}");
        assert_eq!((&*envelope.payload, envelope.key), ("{}", None), "{members}");
    }
    let null = with(r#""type":"T","payload":null"#).unwrap();
    assert_eq!(&*null.payload, "null");
    let own = with(r#""type":"T","idempotencyKey":"own","payload":[ 1 ]"#).unwrap();
    assert_eq!(own.key.unwrap().as_str(), "own");
    assert_eq!(&*own.payload, "[ 1 ]");
}

#[test]
fn the_header_goes_before_the_key_in_the_envelope() {
    let body = EXAMPLE.replace("\"source\"", "\"idempotencyKey\":\"line\",\"source\"");
    let header = IdempotencyKey::parse("header").unwrap();
    let envelope = native(&tenant(), body.as_bytes(), Some(header), TRACE).unwrap();
    assert_eq!(envelope.key.unwrap().as_str(), "header");
    assert_eq!(take(&body).unwrap().key.unwrap().as_str(), "line");
}

#[test]
fn a_uuid_is_kept_in_lower_case() {
    let envelope = take(&EXAMPLE.replace(ID, &ID.to_uppercase())).unwrap();
    assert_eq!(envelope.event_id.as_str(), ID);
}

#[test]
fn every_fault_names_its_field() {
    for (members, text) in [
        (r#""x":1"#, "type is missing"),
        (r#""type":"""#, "type is missing"),
        (r#""type":7"#, "type is not a string"),
        (r#""type":"T","streamKey":{}"#, "streamKey is not a string"),
        (r#""type":"a\tb""#, "type holds a control character"),
        (
            r#""type":"T","timestampUtc":"yesterday""#,
            "timestampUtc is not a time of RFC 3339 with an offset, such as 2026-01-28T10:30:00Z",
        ),
        (
            r#""type":"T","schemaVersion":0"#,
            "schemaVersion is not a whole number from 1 to 1000000",
        ),
        (
            r#""type":"T","schemaVersion":1000001"#,
            "schemaVersion is not a whole number from 1 to 1000000",
        ),
        (
            r#""type":"T","schemaVersion":"1""#,
            "schemaVersion is not a whole number from 1 to 1000000",
        ),
        (
            r#""type":"T","schemaVersion":1.5"#,
            "schemaVersion is not a whole number from 1 to 1000000",
        ),
        (r#""type":"T","type":"T""#, "type is there twice"),
        (r#""type":"T","\u0074ype":"T""#, "type is there twice"),
        (r#""type":"T","x":1,"x":2"#, "body holds the member name \"x\" twice"),
        (r#""type":"T","x":{"y":1,"y":2}"#, "body holds the member name \"y\" twice"),
        (r#""type":"T","payload":{"y":1,"y":2}"#, "payload holds the member name \"y\" twice"),
        (
            r#""type":"T","payload":{"payload":1,"payload":2}"#,
            "payload holds the member name \"payload\" twice",
        ),
        (r#""type":"T","payload":["a\u0000"]"#, "payload holds U+0000"),
        (r#""type":"T\u0000""#, "type holds U+0000"),
        (r#""type":"T","payload":"\ud800""#, "payload holds half of a surrogate pair"),
        (r#""type":"T","idempotencyKey":"a\nb""#, "idempotencyKey holds a control character"),
        (r#""type":"T","tenantId":5"#, "tenantId is not a string"),
    ] {
        assert_eq!(problem(with(members)), text, "{members}");
    }
    for (body, text) in [
        ("{}", "eventId is missing"),
        (r#"{"eventId":"order-7"}"#, "eventId is not a UUID with hyphens"),
        (r#"{"eventId":"b2c6f1a92c2a4d2d9b7b0b5f2a0a67d1"}"#, "eventId is not a UUID with hyphens"),
        ("[]", "body is not a JSON object"),
        ("null", "body is not a JSON object"),
        ("", "the text is not JSON: the end where a value should be at byte 0"),
        ("eventId=1", "the text is not JSON: no value at byte 0"),
        ("{\"a\":1", "the text is not JSON: no ',' or '}' after a member at byte 6"),
    ] {
        assert_eq!(problem(take(body)), text, "{body}");
    }
    let latin = native(&tenant(), b"{\"a\":\"\xe4\"}", None, TRACE);
    assert_eq!(problem(latin), "the text is not JSON: byte 6 is not UTF-8");
}

#[test]
fn names_are_as_long_as_every_store_takes_them() {
    let long =
        |name: &str, len: usize| with(&format!(r#""type":"T","{name}":"{}""#, "ä".repeat(len)));
    long("streamKey", 200).unwrap();
    assert_eq!(problem(long("streamKey", 201)), "streamKey is longer than 200 characters");
    long("idempotencyKey", 255).unwrap();
    assert_eq!(
        problem(long("idempotencyKey", 256)),
        "idempotencyKey is longer than 255 characters"
    );
}

#[test]
fn another_tenants_event_is_refused() {
    let body = EXAMPLE.replace("contoso", "fabrikam");
    assert_eq!(take(&body).unwrap_err(), DoorError::TenantMismatch);
}

#[test]
fn nobody_speaks_as_the_service_itself() {
    let from = |source| {
        take(&format!(r#"{{"eventId":"{ID}","source":"{source}","type":"OrderCreated"}}"#))
    };
    assert_eq!(problem(from("sentinel.reaper")), "source sentinel.reaper is the service itself");
    from("sentinel.reaper.of.mine").unwrap();
}

#[test]
fn only_the_eight_reports_drive_a_process() {
    for kind in ReportKind::ALL {
        assert!(with(&format!(r#""type":"{}""#, kind.event_type())).is_ok(), "{kind:?}");
    }
    for (event_type, text) in [
        ("process.expired", "type process.expired is written by the service itself".to_string()),
        (
            "process.exploded",
            "type \"process.exploded\" is none of the types that drive a process: process.registered, \
             process.started, process.progress, process.heartbeat, process.paused, process.resumed, \
             process.completed, process.failed"
                .to_string(),
        ),
    ] {
        assert_eq!(problem(with(&format!(r#""type":"{event_type}""#))), text);
    }
    with(r#""type":"processed.order""#).unwrap();
    with(r#""type":"Process.whatever""#).unwrap();
}

#[test]
fn a_process_event_is_checked_like_a_report() {
    for (members, text) in [
        (r#""payload":{"progress_percent":101}"#, "progress_percent is not within 0 to 100"),
        (r#""payload":[1]"#, "payload is not a JSON object"),
        (r#""payload":{"process_id":"other"}"#, "process_id differs from streamKey"),
        (r#""payload":{"run_id":"a b"}"#, "run_id may hold only visible ASCII characters"),
    ] {
        let members = format!(r#""type":"process.progress",{members}"#);
        assert_eq!(problem(with(&members)), text);
    }
    with(r#""type":"process.progress","payload":{"process_id":"s"}"#).unwrap();
    with(r#""type":"process.progress","payload":null"#).unwrap();
    let long = format!(r#""type":"process.started","streamKey":"{}""#, "x".repeat(101));
    assert_eq!(
        problem(with(&long)),
        "streamKey must be a process id of at most 100 characters for this type"
    );
}

#[test]
fn a_batch_has_a_line_for_each_event() {
    let lines = |body: &'static str| {
        ndjson_lines(body.as_bytes())
            .map(|(number, line)| (number, std::str::from_utf8(line).unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(lines("{}\n{ }\r\n\n  \r\n{}"), [(1, "{}"), (2, "{ }"), (5, "{}")]);
    assert_eq!(lines("{}\n"), [(1, "{}")]);
    assert_eq!(lines(""), []);
    // A form feed is no blank of JSON: what holds one is no line that can be read, and no empty one either.
    assert_eq!(lines("\x0c{}\n\x0c\n"), [(1, "\x0c{}"), (2, "\x0c")]);
}

#[test]
fn a_line_of_a_batch_is_an_envelope_of_its_own() {
    let body = format!("{}\r\n\n{{\"eventId\":1}}\n", EXAMPLE.replace('\n', ""));
    let results: Vec<_> = ndjson_lines(body.as_bytes())
        .map(|(n, line)| (n, native(&tenant(), line, None, TRACE)))
        .collect();
    assert_eq!((results[0].0, results[0].1.as_ref().unwrap().key.as_ref()), (1, None));
    assert_eq!(results[1], (3, Err(DoorError::invalid("eventId", "is not a string"))));
}

/// A text with some of its bytes replaced, or others put in, or taken out.
pub(in crate::domain) fn changed(text: String, changes: Vec<(usize, u8, usize)>) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    for (at, byte, what) in changes {
        let at = at % bytes.len();
        match what {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

proptest! {
    #[test]
    fn no_bytes_make_the_door_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = native(&tenant(), &bytes, None, TRACE);
        for (_, line) in ndjson_lines(&bytes) {
            let _ = native(&tenant(), line, None, TRACE);
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = idempotency_key(text);
            traceparent(Some(text), || [1; 16]);
            let _ = crate::domain::fields::elements(text, "x", 5);
        }
    }

    #[test]
    fn no_change_to_an_envelope_makes_the_door_panic(
        changes in prop::collection::vec((0_usize..300, any::<u8>(), 0_usize..3), 1..8),
    ) {
        let body = changed(EXAMPLE.replace("OrderCreated", "process.progress"), changes);
        if let Ok(envelope) = native(&tenant(), &body, None, TRACE) {
            // What got in reads the same again, and its hash follows from its fields.
            let hash = canonical::hash(
                &envelope.source, &envelope.event_type, &envelope.stream, envelope.schema_version, &envelope.payload,
            );
            prop_assert_eq!(hash.unwrap(), envelope.hash);
            if let Some(kind) = ReportKind::of_event_type(envelope.event_type.as_str()) {
                prop_assert!(report::parse(kind, &envelope.payload).is_ok());
            }
        }
    }
}
