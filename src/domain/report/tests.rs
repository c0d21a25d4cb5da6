//! What reports and log rows may say. This module is the specification of their doors.

use proptest::prelude::*;

use super::*;
use crate::domain::canonical;
use crate::domain::door::tests::changed;
use crate::domain::event::{Envelope, IdOrigin, TraceContext};
use crate::domain::ids::{IdempotencyKey, TenantId};
use crate::domain::log_row::{Level, LogRow};

const TRACE: TraceContext = TraceContext { trace_id: [7; 16], parent_id: [0; 8], sampled: false };

fn tenant() -> TenantId {
    TenantId::parse("contoso").unwrap()
}

fn process(text: &str) -> ProcessId {
    ProcessId::parse(text).unwrap()
}

fn take(kind: ReportKind, header: Option<&str>, body: &str) -> Result<Envelope, DoorError> {
    let mut number = 0;
    internal(&tenant(), kind, header.map(process), body.as_bytes(), None, TRACE, || {
        number += 1;
        uuid::Uuid::from_u128(number)
    })
}

fn problem<T: std::fmt::Debug>(result: Result<T, DoorError>) -> String {
    result.expect_err("must be refused").to_string()
}

#[test]
fn a_kind_has_one_word_and_one_event_type() {
    for kind in ReportKind::ALL {
        assert_eq!(ReportKind::parse(kind.as_str()), Some(kind));
        assert_eq!(ReportKind::of_event_type(kind.event_type()), Some(kind));
    }
    assert_eq!(ReportKind::parse("log"), None);
    assert_eq!(ReportKind::of_event_type("process.expired"), None);
    assert_eq!(ReportKind::of_event_type("process.failed"), Some(ReportKind::Error));
}

#[test]
fn a_start_says_what_the_process_is() {
    let payload = r#"{"process_name":"Nightly import","process_type":"BATCH","package_name":"CONTRACT_PKG",
        "procedure_name":"CREATE_CONTRACT","correlation_id":"c-1","expected_duration_s":90,
        "heartbeat_interval_s":0.5,"timeout_s":3600,"metadata":{"a":{"b":9007199254740993}},
        "run_id":"B2C6F1A9-2C2A-4D2D-9B7B-0B5F2A0A67D1","unknown":true,"current_step":5}"#;
    for kind in [ReportKind::Start, ReportKind::Register] {
        let report = parse(kind, payload).unwrap();
        let metadata = serde_json::json!({"a":{"b":9_007_199_254_740_993_u64}});
        assert_eq!(
            report,
            Report {
                process_name: Some("Nightly import".into()),
                process_type: Some("BATCH".into()),
                package_name: Some("CONTRACT_PKG".into()),
                procedure_name: Some("CREATE_CONTRACT".into()),
                correlation_id: Some("c-1".into()),
                expected_duration: Some(Duration::from_secs(90)),
                heartbeat_interval: Some(Duration::from_millis(500)),
                timeout: Some(Duration::from_secs(3600)),
                metadata: metadata.as_object().cloned(),
                run_id: Some(EventId::parse("b2c6f1a9-2c2a-4d2d-9b7b-0b5f2a0a67d1").unwrap()),
                ..Report::default()
            }
        );
    }
}

#[test]
fn the_other_reports_say_what_is_theirs() {
    let progress = r#"{"current_step":"INSERTING\n","progress_percent":33.33333,"metadata":{"x":1},"message":7}"#;
    let report = parse(ReportKind::Progress, progress).unwrap();
    assert_eq!(report.current_step.as_deref(), Some("INSERTING\n"));
    assert_eq!((report.progress_percent, report.message), (Some(33.33), None));
    assert_eq!(report.metadata.unwrap().len(), 1);
    for kind in [ReportKind::Heartbeat, ReportKind::Pause, ReportKind::Resume] {
        let report =
            parse(kind, r#"{"message":"still \u0061live","progress_percent":900}"#).unwrap();
        assert_eq!(report.message.as_deref(), Some("still alive"));
    }
    let complete =
        parse(ReportKind::Complete, r#"{"result":{ "rows" : [ 1.50 , "a b" ] }}"#).unwrap();
    assert_eq!(complete.result.as_deref(), Some(r#"{"rows":[1.50,"a b"]}"#));
    let error = r#"{"error_code":-20001,"error_message":"ORA-20001","stack_trace":"a\nb"}"#;
    let error = parse(ReportKind::Error, error).unwrap();
    assert_eq!(error.error_code.as_deref(), Some("-20001"));
    assert_eq!(error.error_message.as_deref(), Some("ORA-20001"));
    assert_eq!(error.stack_trace.as_deref(), Some("a\nb"));
    let word =
        parse(ReportKind::Error, r#"{"error_code":"E_TIMEOUT","error_message":""}"#).unwrap();
    assert_eq!((word.error_code.as_deref(), word.error_message), (Some("E_TIMEOUT"), None));
    for kind in ReportKind::ALL {
        for nothing in
            ["{}", " null ", r#"{"message":"","metadata":null,"result":null,"run_id":""}"#]
        {
            assert_eq!(parse(kind, nothing).unwrap(), Report::default(), "{kind:?} {nothing}");
        }
    }
}

#[test]
fn percents_have_two_decimals_and_bounds() {
    let percent = |number: &str| {
        parse(ReportKind::Progress, &format!(r#"{{"progress_percent":{number}}}"#))
            .map(|report| report.progress_percent)
    };
    for (number, expected) in [
        ("0", 0.0),
        ("-0.0", 0.0),
        ("100", 100.0),
        ("99.999", 100.0),
        ("1e1", 10.0),
        ("40.005", 40.01),
    ] {
        assert_eq!(percent(number).unwrap(), Some(expected), "{number}");
    }
    assert!(percent("-0.0").unwrap().unwrap().is_sign_positive());
    for number in ["-0.01", "100.01", "1e400", "-1e400"] {
        assert!(percent(number).is_err(), "{number}");
    }
    assert_eq!(problem(percent("\"40\"")), "progress_percent is not a number");
    assert_eq!(problem(percent("101")), "progress_percent is not within 0 to 100");
}

#[test]
fn every_fault_of_a_report_names_its_field() {
    use ReportKind::{Complete, Error, Heartbeat, Progress, Start};
    let long = |field: &str, len: usize| format!(r#"{{"{field}":"{}"}}"#, "ä".repeat(len));
    for (kind, payload, text) in [
        (Start, long("process_type", 51), "process_type is longer than 50 characters"),
        (Start, long("process_name", 201), "process_name is longer than 200 characters"),
        (Start, long("package_name", 129), "package_name is longer than 128 characters"),
        (Start, long("procedure_name", 129), "procedure_name is longer than 128 characters"),
        (Start, long("correlation_id", 101), "correlation_id is longer than 100 characters"),
        (Start, r#"{"process_name":"a\u001bb"}"#.into(), "process_name holds a control character"),
        (Start, r#"{"process_name":{}}"#.into(), "process_name is not a string"),
        (
            Start,
            r#"{"timeout_s":0}"#.into(),
            "timeout_s is not a positive number of seconds up to 31622400",
        ),
        (
            Start,
            r#"{"expected_duration_s":-1}"#.into(),
            "expected_duration_s is not a positive number of seconds up to 31622400",
        ),
        (
            Start,
            r#"{"heartbeat_interval_s":604801}"#.into(),
            "heartbeat_interval_s is not a positive number of seconds up to 604800",
        ),
        (Start, r#"{"timeout_s":"60"}"#.into(), "timeout_s is not a number"),
        (
            Start,
            r#"{"timeout_s":1e300}"#.into(),
            "timeout_s is not a positive number of seconds up to 31622400",
        ),
        (Start, r#"{"metadata":[1]}"#.into(), "metadata is not a JSON object"),
        (
            Progress,
            format!(r#"{{"metadata":{{"a":"{}"}}}}"#, "x".repeat(METADATA_BYTES_MAX)),
            "metadata is more than 16384 bytes",
        ),
        (
            Progress,
            r#"{"metadata":{"a":1e400}}"#.into(),
            "metadata number out of range at line 1 column 10",
        ),
        (
            Progress,
            r#"{"metadata":{"a":{"b":1,"b":2}}}"#.into(),
            "metadata holds the member name \"b\" twice",
        ),
        (Progress, long("current_step", 201), "current_step is longer than 200 characters"),
        (Heartbeat, r#"{"message":5}"#.into(), "message is not a string"),
        (Heartbeat, r#"{"message":"a","message":"a"}"#.into(), "message is there twice"),
        (Heartbeat, r#"{"message":"\u0000"}"#.into(), "message holds U+0000"),
        (
            Heartbeat,
            r#"{"occurred_at":"2026-01-01"}"#.into(),
            "occurred_at is not a time of RFC 3339 with an offset, such as 2026-01-28T10:30:00Z",
        ),
        (Heartbeat, long("event_id", 1), "event_id may hold only visible ASCII characters"),
        (Complete, "[]".into(), "payload is not a JSON object"),
        (Complete, "{".into(), "the text is not JSON: no member name at byte 1"),
        (Error, long("error_code", 101), "error_code is longer than 100 characters"),
        (
            Error,
            format!(r#"{{"error_code":{}}}"#, "1".repeat(101)),
            "error_code is longer than 100 characters",
        ),
        (Error, r#"{"error_code":true}"#.into(), "error_code is not a string"),
    ] {
        assert_eq!(problem(parse(kind, &payload)), text, "{payload}");
    }
}

#[test]
fn a_long_error_is_cut_and_not_lost() {
    let text = |len: usize| "ä".repeat(len);
    let payload =
        format!(r#"{{"error_message":"{}","stack_trace":"{}"}}"#, text(2001), text(40_000));
    let report = parse(ReportKind::Error, &payload).unwrap();
    assert_eq!(&*report.error_message.unwrap(), format!("{}…", text(1998)));
    assert_eq!(report.stack_trace.unwrap().len(), STACK_TRACE_BYTES_MAX - 1);
    let whole = format!(r#"{{"error_message":"{}"}}"#, "x".repeat(4000));
    assert_eq!(parse(ReportKind::Error, &whole).unwrap().error_message.unwrap().len(), 4000);
}

#[test]
fn a_bare_ping_is_a_report() {
    for body in ["", " \r\n", "{}", "null"] {
        let envelope = take(ReportKind::Heartbeat, Some("p"), body).unwrap();
        assert_eq!(envelope.event_type.as_str(), "process.heartbeat");
        assert_eq!((envelope.source.as_str(), envelope.stream.as_str()), ("http", "p"));
        assert_eq!((&*envelope.payload, envelope.id_origin), ("{}", IdOrigin::Door), "{body:?}");
        assert_eq!(envelope.event_id, EventId::from_uuid(uuid::Uuid::from_u128(1)));
    }
}

#[test]
fn a_report_becomes_the_event_that_could_have_been_posted() {
    let body = r#"{ "process_id" : "p", "event_id":"e-1", "occurred_at":"2026-01-28T10:30:00Z",
        "progress_percent": 40.50, "run_id": "r-1", "note" : "a  b" }"#;
    let envelope = take(ReportKind::Progress, None, body).unwrap();
    let payload = r#"{"progress_percent":40.50,"run_id":"r-1","note":"a  b"}"#;
    assert_eq!(&*envelope.payload, payload);
    assert_eq!((envelope.event_id.as_str(), envelope.id_origin), ("e-1", IdOrigin::Caller));
    assert_eq!(envelope.occurred_at, Timestamp::parse("2026-01-28T10:30:00Z"));
    let hash =
        canonical::hash(&envelope.source, &envelope.event_type, &envelope.stream, 1, payload);
    assert_eq!(envelope.hash, hash.unwrap());
    let report = parse(ReportKind::Progress, &envelope.payload).unwrap();
    assert_eq!((report.progress_percent, report.run_id.unwrap().as_str()), (Some(40.5), "r-1"));
    // The same again at another time is the same report.
    let later = body.replace("10:30:00", "10:31:00").replace("e-1", "e-2");
    assert_eq!(take(ReportKind::Progress, Some("p"), &later).unwrap().hash, envelope.hash);
}

#[test]
fn the_process_is_named_in_the_head_or_in_the_body() {
    let body = r#"{"process_id":"p"}"#;
    for (header, body) in [(Some("p"), ""), (None, body), (Some("p"), body)] {
        assert_eq!(take(ReportKind::Pause, header, body).unwrap().stream.as_str(), "p");
    }
    assert_eq!(
        problem(take(ReportKind::Pause, Some("q"), body)),
        "process_id differs from the field X-Sentinel-Process-Id"
    );
    for kind in ReportKind::ALL.into_iter().filter(|kind| *kind != ReportKind::Start) {
        assert_eq!(
            problem(take(kind, None, "")),
            "process_id is missing: send it in the body or as X-Sentinel-Process-Id"
        );
    }
    assert_eq!(
        problem(take(ReportKind::Pause, None, r#"{"process_id":7}"#)),
        "process_id is not a string"
    );
    assert_eq!(problem(take(ReportKind::Pause, None, "[]")), "body is not a JSON object");
    let long = format!(r#"{{"process_id":"{}"}}"#, "x".repeat(101));
    assert_eq!(
        problem(take(ReportKind::Pause, None, &long)),
        "process_id is longer than 100 characters"
    );
}

#[test]
fn a_start_without_a_process_makes_one_and_may_be_retried() {
    let start = |first: u128| {
        let mut number = first;
        let key = IdempotencyKey::parse("k").unwrap();
        internal(&tenant(), ReportKind::Start, None, b"", Some(key), TRACE, || {
            number += 1;
            uuid::Uuid::from_u128(number)
        })
        .unwrap()
    };
    let (one, two) = (start(0), start(100));
    assert_eq!(one.stream.as_str(), "00000000-0000-0000-0000-000000000001");
    assert_eq!(one.event_id.as_str(), "00000000-0000-0000-0000-000000000002");
    assert_ne!(one.stream, two.stream);
    assert_eq!(one.hash, two.hash, "a retry under one key is no conflict");
    let named = take(ReportKind::Start, Some("p"), "").unwrap();
    assert_ne!(one.hash, named.hash);
}

const NOW: Timestamp = Timestamp::from_micros(1_000_000);

fn rows(header: Option<&str>, body: &str) -> Result<Vec<LogRow>, DoorError> {
    log_rows(&tenant(), header.map(process), body.as_bytes(), NOW)
}

#[test]
fn a_log_row_comes_in_whole() {
    let body = r#"{"level":"warn","message":"low \u0061nd slow","event_type":"DISK","component":"loader",
        "details":{ "free" : [ 1 ] },"stack_trace":"at x","logged_at":"1970-01-01T00:00:00.5Z","duration_us":1500,
        "correlation_id":"c","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","more":1}"#;
    let expected = LogRow {
        tenant: tenant(),
        process: process("p"),
        level: Level::Warn,
        message: "low and slow".into(),
        event_type: Some("DISK".into()),
        component: Some("loader".into()),
        details: Some(r#"{"free":[1]}"#.into()),
        stack_trace: Some("at x".into()),
        logged_at: Timestamp::from_micros(500_000),
        duration_us: Some(1500),
        correlation_id: Some("c".into()),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        span_id: Some("00f067aa0ba902b7".into()),
    };
    assert_eq!(rows(Some("p"), body).unwrap(), std::slice::from_ref(&expected));

    let own = r#" [ {"message":"m","process_id":"p"}, {"message":"n","process_id":"q","level":"","details":null} ]"#;
    let rows = rows(None, own).unwrap();
    assert_eq!((rows[0].process.as_str(), rows[1].process.as_str()), ("p", "q"));
    assert_eq!((rows[1].level, rows[1].logged_at, &rows[1].details), (Level::Info, NOW, &None));
    assert_eq!(self::rows(Some("p"), "[]").unwrap(), []);
    let form_feed = self::rows(Some("p"), "\x0c{\"message\":\"m\"}");
    assert!(matches!(form_feed, Err(DoorError::NotJson(_))), "{form_feed:?}");
}

#[test]
fn a_long_message_is_cut_with_a_mark() {
    let message = |len: usize| {
        let body = format!(r#"{{"message":"{}"}}"#, "x".repeat(len));
        rows(Some("p"), &body).unwrap().remove(0).message
    };
    assert_eq!(message(4000).len(), 4000);
    let cut = message(4001);
    assert!(cut.ends_with("x…") && cut.len() == 4000, "{}", cut.len());
}

#[test]
fn every_fault_of_a_log_row_names_its_field_and_element() {
    let long =
        |field: &str, len: usize| format!(r#"{{"message":"m","{field}":"{}"}}"#, "x".repeat(len));
    for (body, text) in [
        ("{}".to_string(), "message is missing"),
        (String::new(), "the text is not JSON: the end where a value should be at byte 0"),
        (r#"{"message":""}"#.into(), "message is missing"),
        (r#"{"message":{"a":1}}"#.into(), "message is not a string"),
        (r#"[{"message":"m"},{"message":7}]"#.into(), "message of element 1 is not a string"),
        (r#"[{"message":"m"},7]"#.into(), "body of element 1 is not a JSON object"),
        (r#"[{"message":"\u0000"}]"#.into(), "message of element 0 holds U+0000"),
        (
            r#"{"message":"m","level":"NOTICE"}"#.into(),
            "level is none of TRACE, DEBUG, INFO, WARN, ERROR, FATAL",
        ),
        (
            r#"{"message":"m","duration_us":-1}"#.into(),
            "duration_us is not a whole number from 0 to 9223372036854775807",
        ),
        (
            r#"{"message":"m","duration_us":9223372036854775808}"#.into(),
            "duration_us is not a whole number from 0 to 9223372036854775807",
        ),
        (
            r#"{"message":"m","logged_at":"now"}"#.into(),
            "logged_at is not a time of RFC 3339 with an offset, such as 2026-01-28T10:30:00Z",
        ),
        (
            r#"{"message":"m","process_id":"q"}"#.into(),
            "process_id differs from the field X-Sentinel-Process-Id",
        ),
        (long("event_type", 51), "event_type is longer than 50 characters"),
        (long("component", 101), "component is longer than 100 characters"),
        (long("correlation_id", 101), "correlation_id is longer than 100 characters"),
        (long("trace_id", 33), "trace_id is longer than 32 characters"),
        (long("span_id", 33), "span_id is longer than 32 characters"),
        (long("details", 64 * 1024), "details is more than 65536 bytes"),
    ] {
        assert_eq!(problem(rows(Some("p"), &body)), text, "{body}");
    }
    assert_eq!(
        problem(rows(None, r#"{"message":"m"}"#)),
        "process_id is missing: send it in the row or as X-Sentinel-Process-Id"
    );
    let many = |len: usize| format!("[{}]", vec![r#"{"message":"m"}"#; len].join(","));
    assert_eq!(rows(Some("p"), &many(LOG_ROWS_MAX)).unwrap().len(), LOG_ROWS_MAX);
    let over = rows(Some("p"), &many(LOG_ROWS_MAX + 1)).unwrap_err();
    assert_eq!(over, DoorError::TooMany { what: "log rows", max: LOG_ROWS_MAX });
}

const REPORT: &str = r#"{"process_id":"p","event_id":"e","run_id":"r","occurred_at":"2026-01-28T10:30:00Z",
 "process_name":"n","expected_duration_s":5,"metadata":{"a":[1]},"current_step":"s","progress_percent":4.5,
 "message":"m","result":{"x":1},"error_code":-1,"error_message":"m","stack_trace":"t","level":"INFO","details":[1]}"#;

#[test]
fn only_the_white_space_of_json_may_surround_a_body() {
    let door = |body: &[u8]| {
        internal(&tenant(), ReportKind::Start, None, body, None, TRACE, uuid::Uuid::nil)
    };
    assert_eq!(&*door(b" \t\r\n{} \n").unwrap().payload, "{}");
    assert!(matches!(door(b"\x0c{}"), Err(DoorError::NotJson(_))));
}

proptest! {
    #[test]
    fn no_bytes_make_a_door_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0_usize..8) {
        let kind = ReportKind::ALL[kind];
        let _ = internal(&tenant(), kind, None, &bytes, None, TRACE, uuid::Uuid::nil);
        let _ = log_rows(&tenant(), Some(process("p")), &bytes, NOW);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = parse(kind, text);
        }
    }

    #[test]
    fn what_got_through_the_door_reads_the_same_when_it_is_applied(
        changes in prop::collection::vec((0_usize..500, any::<u8>(), 0_usize..3), 0..6), kind in 0_usize..8,
    ) {
        let body = changed(REPORT.to_string(), changes);
        let kind = ReportKind::ALL[kind];
        if let Ok(envelope) = internal(&tenant(), kind, Some(process("p")), &body, None, TRACE, uuid::Uuid::nil) {
            let posted = parse(kind, std::str::from_utf8(&body).unwrap()).unwrap();
            let applied = parse(kind, &envelope.payload).unwrap();
            let moved = Report { process_id: None, event_id: None, occurred_at: None, ..posted };
            prop_assert_eq!(applied, moved);
        }
        let _ = log_rows(&tenant(), None, &body, NOW);
        let array = [b"[", &body[..], b"]"].concat();
        let _ = log_rows(&tenant(), None, &array, NOW);
    }

    #[test]
    fn a_cut_never_splits_a_character(text in "[aä€😀]{0,40}", max in 3_usize..60) {
        let cut = cut(&text, max);
        prop_assert!(cut.len() <= max);
        prop_assert!(*cut == *text || cut.ends_with(CUT_MARK));
    }
}
