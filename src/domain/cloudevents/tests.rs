//! What the door for `CloudEvents` takes and refuses. This module is its specification.

use proptest::prelude::*;

use super::*;
use crate::domain::door::native;
use crate::domain::door::tests::changed;
use crate::domain::event::IdOrigin;

const EXAMPLE: &str = r#"{"specversion":"1.0","id":"A234-1234","source":"/orders","type":"com.example.order",
 "subject":"order-7","time":"2026-04-05T17:31:00Z","datacontenttype":"application/json","comexampleextension":"v",
 "data":{"b":1, "a":2}}"#;
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER_TRACE: &str = "00-11111111111111111111111111111111-00f067aa0ba902b7-00";

fn tenant() -> TenantId {
    TenantId::parse("contoso").unwrap()
}

fn take(body: &str) -> Result<Envelope, DoorError> {
    structured(&tenant(), body.as_bytes(), None, None, || [9; 16])
}

/// A structured event with these members beside the required ones.
fn with(members: &str) -> Result<Envelope, DoorError> {
    take(&format!(r#"{{"specversion":"1.0","id":"i","source":"s","type":"t"{members}}}"#))
}

fn headers(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let required =
        [("ce-specversion", "1.0"), ("CE-Id", "i"), ("ce-source", "s"), ("ce-type", "t")];
    required.into_iter().chain(more.iter().copied()).collect()
}

fn take_binary(
    headers: &[(&'static str, &'static str)],
    body: &[u8],
) -> Result<Envelope, DoorError> {
    binary(&tenant(), headers.iter().copied(), body, None, None, || [9; 16])
}

#[test]
fn a_structured_event_maps_to_an_envelope() {
    let envelope = take(EXAMPLE).unwrap();
    assert_eq!(envelope.event_id.as_str(), "A234-1234");
    assert_eq!(envelope.id_origin, IdOrigin::Caller);
    assert_eq!(envelope.source.as_str(), "/orders");
    assert_eq!(envelope.event_type.as_str(), "com.example.order");
    assert_eq!(envelope.stream.as_str(), "order-7");
    assert_eq!(envelope.occurred_at, Timestamp::parse("2026-04-05T17:31:00Z"));
    assert_eq!(envelope.schema_version, 1);
    assert_eq!(&*envelope.payload, r#"{"b":1, "a":2}"#);
    assert_eq!((envelope.key, envelope.trace.trace_id), (None, [9; 16]));

    let bare = with("").unwrap();
    assert_eq!((bare.stream.as_str(), bare.occurred_at, &*bare.payload), ("s", None, "{}"));
}

#[test]
fn data_of_any_kind_becomes_json() {
    for (members, payload) in [
        (r#","data":null"#, "null"),
        (r#","data":"text""#, r#""text""#),
        (r#","data":[1.50]"#, "[1.50]"),
        (r#","data_base64":"aGVsbG8=""#, r#""aGVsbG8=""#),
        (r#","data_base64":null"#, "{}"),
    ] {
        assert_eq!(&*with(members).unwrap().payload, payload, "{members}");
    }
    for (members, problem) in [
        (r#","data_base64":"***""#, "data_base64 is not base64"),
        (r#","data_base64":"aGVsbG8=","data":1"#, "data_base64 stands beside data"),
        (r#","data":{"a":1,"a":2}"#, "data holds the member name \"a\" twice"),
        (r#","data":"\u0000""#, "data holds U+0000"),
    ] {
        assert_eq!(with(members).unwrap_err().to_string(), problem, "{members}");
    }
}

#[test]
fn every_fault_names_its_attribute() {
    for (from, to, problem) in [
        (r#""specversion":"1.0","#, "", "specversion is missing"),
        (r#""specversion":"1.0""#, r#""specversion":"0.3""#, "specversion is not 1.0"),
        (r#""specversion":"1.0""#, r#""specversion":1.0"#, "specversion is not a string"),
        (r#""id":"A234-1234","#, "", "id is missing"),
        (r#""A234-1234""#, r#""""#, "id is missing"),
        (r#""A234-1234""#, r#""a b""#, "id may hold only visible ASCII characters"),
        (r#""source":"/orders","#, "", "source is missing"),
        (r#""type":"com.example.order","#, "", "type is missing"),
        (
            "com.example.order",
            "process.expired",
            "type process.expired is written by the service itself",
        ),
        ("2026-04-05T17:31:00Z", "noon", "time is not a time of RFC 3339"),
        (r#""subject":"#, r#""id":"x","subject":"#, "id is there twice"),
        (r#""v""#, r#"{"a":"\ud800"}"#, "body holds half of a surrogate pair"),
        ("}}", "}", "the text is not JSON: no ',' or '}' after a member at byte 222"),
    ] {
        let body = EXAMPLE.replace(from, to);
        assert_eq!(take(&body).unwrap_err().to_string(), problem, "{body}");
    }
    assert_eq!(take("[]").unwrap_err().to_string(), "body is not a JSON object");
}

#[test]
fn extensions_count_where_the_request_is_silent() {
    let extensions =
        format!(r#","idempotencykey":"own","traceparent":"{OTHER_TRACE}","tenantid":"contoso""#);
    let own = with(&extensions).unwrap();
    assert_eq!((own.key.unwrap().as_str(), own.trace.trace_id), ("own", [0x11; 16]));

    let body = format!(r#"{{"specversion":"1.0","id":"i","source":"s","type":"t"{extensions}}}"#);
    let header = IdempotencyKey::parse("header").unwrap();
    let both =
        structured(&tenant(), body.as_bytes(), Some(header), Some(TRACE), || [9; 16]).unwrap();
    assert_eq!(both.key.unwrap().as_str(), "header");
    assert_eq!(both.trace.trace_id[0], 0x4b);
    let broken = structured(&tenant(), body.as_bytes(), None, Some("garbage"), || [9; 16]).unwrap();
    assert_eq!(broken.trace.trace_id, [0x11; 16]);

    assert_eq!(with(r#","tenantid":"fabrikam""#).unwrap_err(), DoorError::TenantMismatch);
    assert_eq!(with(r#","traceparent":"garbage""#).unwrap().trace.trace_id, [9; 16]);
}

#[test]
fn a_process_event_is_checked_like_a_report() {
    let body = |subject: &str, data: &str| {
        take(&format!(
            r#"{{"specversion":"1.0","id":"i","source":"s","type":"process.progress","subject":"{subject}","data":{data}}}"#
        ))
    };
    body("p", r#"{"progress_percent":40}"#).unwrap();
    assert_eq!(
        body("p", r#"{"progress_percent":-1}"#).unwrap_err().to_string(),
        "progress_percent is not within 0 to 100"
    );
    assert_eq!(body("p", "\"text\"").unwrap_err().to_string(), "payload is not a JSON object");
    assert_eq!(
        body(&"x".repeat(101), "{}").unwrap_err().to_string(),
        "subject must be a process id of at most 100 characters for this type"
    );
}

#[test]
fn a_binary_event_has_its_attributes_in_the_head() {
    let more = [
        ("Content-Type", "application/json; charset=utf-8"),
        ("ce-time", "2026-04-05T17:31:00Z"),
        ("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ("ce-idempotencykey", "k"),
        ("ce-tenantid", "contoso"),
        ("ce-unknown", "%ff"),
        ("Authorization", "x"),
    ];
    let envelope = take_binary(&headers(&more), b" {\"a\": 1} ").unwrap();
    assert_eq!(envelope.event_id.as_str(), "i");
    assert_eq!(envelope.stream.as_str(), "Euro € 😀");
    assert_eq!(envelope.occurred_at, Timestamp::parse("2026-04-05T17:31:00Z"));
    assert_eq!(envelope.key.unwrap().as_str(), "k");
    assert_eq!(&*envelope.payload, "{\"a\": 1}");
}

#[test]
fn header_values_are_unquoted_and_decoded_once() {
    for (value, text) in [
        ("plain", "plain"),
        ("\"quoted \\\"text\\\"\"", "quoted \"text\""),
        ("a%2525", "a%25"),
        ("%zz%4", "%zz%4"),
        ("%41\u{e4}", "A\u{e4}"),
        ("\"", "\""),
    ] {
        assert_eq!(header_value("subject", value).unwrap(), text, "{value}");
    }
    for (value, problem) in [
        ("%ff", "subject is not UTF-8 once it is percent-decoded"),
        ("a%00", "subject holds a control character"),
        ("a%0a", "subject holds a control character"),
    ] {
        let error = take_binary(&headers(&[("ce-subject", value)]), b"").unwrap_err();
        assert_eq!(error.to_string(), problem, "{value}");
    }
    let twice = take_binary(&headers(&[("ce-id", "other")]), b"").unwrap_err();
    assert_eq!(twice.to_string(), "id is there twice");
    let other = take_binary(&headers(&[("ce-tenantid", "fabrikam")]), b"").unwrap_err();
    assert_eq!(other, DoorError::TenantMismatch);
    let none = take_binary(&[], b"{}").unwrap_err();
    assert_eq!(none.to_string(), "specversion is missing");
}

#[test]
fn binary_data_is_read_by_its_content_type() {
    let payload = |content_type: Option<&'static str>, body: &[u8]| {
        let more: Vec<_> = content_type.map(|value| ("content-type", value)).into_iter().collect();
        take_binary(&headers(&more), body).map(|envelope| envelope.payload.into_string())
    };
    for (content_type, body, text) in [
        (None, &b""[..], "{}"),
        (Some("text/plain"), b"", "{}"),
        (None, b"[1]", "[1]"),
        (Some("Application/JSON"), b"1.0", "1.0"),
        (Some("application/vnd.x+json"), b"\"x\"", "\"x\""),
        (Some("text/plain; charset=utf-8"), "sagt \"ä\"\n".as_bytes(), r#""sagt \"ä\"\n""#),
        (Some("application/xml"), b"<a/>", "\"<a/>\""),
        (Some("text/plain"), b"\xff\x00", "\"/wA=\""),
        (Some("application/octet-stream"), b"hello", "\"aGVsbG8=\""),
    ] {
        assert_eq!(payload(content_type, body).unwrap(), text, "{content_type:?}");
    }
    for (content_type, body, problem) in [
        (Some("application/json"), &b"{"[..], "the text is not JSON: no member name at byte 1"),
        (Some("application/json"), b"\xff", "the text is not JSON: byte 0 is not UTF-8"),
        (None, b"{\"a\":1,\"a\":1}", "data holds the member name \"a\" twice"),
        (Some("text/plain"), b"a\0", "data holds U+0000"),
    ] {
        assert_eq!(payload(content_type, body).unwrap_err().to_string(), problem);
    }
}

#[test]
fn events_of_a_batch_stand_for_themselves() {
    let body = format!(r#"[{EXAMPLE}, {{"id":1,"id":2}}, 5, {EXAMPLE}]"#);
    let take = |body: &str| batch(&tenant(), body.as_bytes(), None, || [9; 16]);
    let results = take(&body).unwrap();
    let problems: Vec<_> =
        results.iter().map(|result| result.as_ref().err().map(ToString::to_string)).collect();
    let problem = |text: &str| Some(text.to_string());
    assert_eq!(
        problems,
        [None, problem("id is there twice"), problem("body is not a JSON object"), None]
    );
    assert_eq!(take("[]").unwrap().len(), 0);
    assert_eq!(take("{}").unwrap_err().to_string(), "body is not a JSON array");
    assert!(matches!(take("[{}").unwrap_err(), DoorError::NotJson(_)));
    let full = |events: usize| format!("[{}]", vec!["1"; events].join(","));
    assert_eq!(take(&full(BATCH_EVENTS_MAX)).unwrap().len(), BATCH_EVENTS_MAX);
    let over = take(&full(BATCH_EVENTS_MAX + 1)).unwrap_err();
    assert_eq!(over, DoorError::TooMany { what: "events", max: BATCH_EVENTS_MAX });
}

#[test]
fn the_same_event_has_one_hash_in_every_mode() {
    let one = with(r#","data":{"b":[1.0],"a":"x"}"#).unwrap();
    let two = take_binary(&headers(&[]), b"{\"a\":\"\\u0078\",\"b\":[1]}").unwrap();
    assert_eq!(one.hash, two.hash);
    let body = format!(
        r#"{{"eventId":"{}","source":"s","type":"t","payload":{{"a":"x","b":[1]}}}}"#,
        uuid::Uuid::nil()
    );
    let native = native(&tenant(), body.as_bytes(), None, one.trace).unwrap();
    assert_eq!(one.hash, native.hash);
}

proptest! {
    #[test]
    fn no_bytes_make_the_door_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..120), value in "[ -~é%\"\\\\]{0,20}", at in 0_usize..9,
        content_type in prop::sample::select(vec!["", "application/json", "text/plain", "image/png", ";", "\u{e4}"]),
    ) {
        let _ = structured(&tenant(), &bytes, None, Some(&value), || [9; 16]);
        let _ = batch(&tenant(), &bytes, Some(&value), || [9; 16]);
        let name = format!("ce-{}", ATTRIBUTES[at]);
        let fields = headers(&[]);
        let fields = fields.into_iter().filter(|(known, _)| !known.eq_ignore_ascii_case(&name));
        let fields = fields.chain([(name.as_str(), value.as_str()), ("content-type", content_type), (&value, "x")]);
        let _ = binary(&tenant(), fields, &bytes, None, None, || [9; 16]);
    }

    #[test]
    fn no_change_to_an_event_makes_the_door_panic(
        changes in prop::collection::vec((0_usize..400, any::<u8>(), 0_usize..3), 1..8),
    ) {
        let body = changed(format!("[{EXAMPLE}]"), changes);
        let _ = batch(&tenant(), &body, None, || [9; 16]);
        let _ = structured(&tenant(), &body[1..], None, None, || [9; 16]);
    }
}
