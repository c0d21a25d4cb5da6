//! Every kind of problem can be met, has its status, and explains itself.

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::TcpStream;

use sentinel::routes::problem::Kind;
use sentinel::service::{Parts, wall_clock};
use serde_json::json;

use crate::harness::{
    Client, InProcess, PATIENCE, Response, envelope, eventually, read_response, token,
};

/// Sends bytes as they are.
fn raw(address: std::net::SocketAddr, bytes: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    read_response(&mut BufReader::new(stream), false).unwrap()
}

#[test]
fn every_problem_has_its_status_and_explains_itself() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(
        folder.path(),
        wall_clock(),
        Parts::ALL,
        &[("SENTINEL_QUEUE_CAPACITY", "100")],
    );
    let address = service.service.api_address();
    let mut client = service.client("demo");
    let json_type = ("Content-Type", "application/json");
    let event = |id: u128| envelope(id, "s", json!({ "n": u64::try_from(id).unwrap() }));
    client.event("k1", &event(1)).expect(202);
    let mut met = BTreeSet::new();
    let mut meet = |kind: Kind, response: Response| {
        assert_eq!(response.status, kind.status(), "{kind:?}: {}", response.text());
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{kind:?}");
        let body = response.json();
        assert_eq!(body["type"], format!("/problems/{}", kind.name()), "{body}");
        assert_eq!(body["status"], kind.status());
        assert!(!body["detail"].as_str().unwrap().is_empty());
        let trace_id = body["traceId"].as_str().unwrap_or_default();
        assert!(trace_id.len() == 32 && trace_id.bytes().all(|b| b.is_ascii_hexdigit()), "{body}");
        met.insert(kind.name());
    };
    meet(Kind::BadRequest, client.get("/processes?limit=0"));
    let misspelt = client.get("/processes?staus=EXPIRED");
    assert!(misspelt.text().contains("status, type, name"), "it says which: {}", misspelt.text());
    meet(Kind::BadRequest, misspelt);
    // An event that is meant for another tenant must not end up with one's own.
    let meant = event(9);
    meet(Kind::BadRequest, client.post("/v1/events?tennant=other", &meant));
    let path = format!("/v1/events/{}", meant["eventId"].as_str().unwrap());
    meet(Kind::NotFound, client.get(&path));
    client.get("/health?probe=7").expect(200);
    meet(
        Kind::InvalidBody,
        client.request("POST", "/v1/events", &[json_type, ("Idempotency-Key", "k")], b"{"),
    );
    let array = format!("[{}]", event(2));
    let fields = [json_type, ("Idempotency-Key", "k")];
    let refused = client.request("POST", "/v1/events", &fields, array.as_bytes());
    assert!(refused.text().contains("application/x-ndjson"), "it says how: {}", refused.text());
    meet(Kind::InvalidBody, refused);
    meet(Kind::KeyMissing, client.post("/v1/events", &event(2)));
    let line = event(2).to_string();
    let fields = [("Content-Type", "application/x-ndjson"), ("Idempotency-Key", "k")];
    meet(Kind::KeyOnBatch, client.request("POST", "/v1/events", &fields, line.as_bytes()));
    meet(Kind::Unauthorized, Client::new(address, "").get("/processes"));
    let reader = token(folder.path(), "demo", &["sentinel:read"]);
    meet(
        Kind::Forbidden,
        Client::new(address, &reader).request("POST", "/internal/start", &[], b""),
    );
    let mut foreign = event(3);
    foreign["tenantId"] = json!("other");
    meet(Kind::TenantMismatch, client.event("k3", &foreign));
    meet(Kind::NotFound, client.get("/status/nobody"));
    meet(Kind::NotFound, client.get("/nowhere"));
    let refused = client.request("DELETE", "/status/p", &[], b"");
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    meet(Kind::MethodNotAllowed, refused);
    meet(Kind::KeyReused, client.event("k1", &event(4)));
    let mut reused = event(1);
    reused["payload"] = json!({"other": true});
    meet(Kind::EventIdReused, client.event("k5", &reused));
    // Refused by what the head says, before a byte of the body is read.
    let writer = token(folder.path(), "demo", &["sentinel:write"]);
    let long = format!(
        "POST /internal/start HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {writer}\r\nContent-Length: 2000000\r\n\r\n"
    );
    let refused = raw(address, long.as_bytes());
    assert!(refused.text().contains("1048576 bytes"), "it says what would do: {}", refused.text());
    meet(Kind::TooLarge, refused);
    let unknown = raw(address, b"BREW /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(unknown.text().contains("method"), "{}", unknown.text());
    meet(Kind::NotImplemented, unknown);
    let fields = [("Content-Type", "text/plain"), ("Idempotency-Key", "k6")];
    meet(Kind::UnsupportedMediaType, client.request("POST", "/v1/events", &fields, b"x"));
    for path in ["/v1/events", "/internal/log", "/internal/start"] {
        let fields = [json_type, ("Idempotency-Key", "k7"), ("Content-Encoding", "gzip")];
        let packed = client.request("POST", path, &fields, event(7).to_string().as_bytes());
        assert_eq!(packed.header("accept-encoding"), Some("identity"));
        meet(Kind::UnsupportedMediaType, packed);
    }
    meet(
        Kind::ExpectationFailed,
        raw(address, b"GET /health HTTP/1.1\r\nHost: localhost\r\nExpect: tea\r\n\r\n"),
    );
    meet(
        Kind::MisdirectedRequest,
        raw(address, b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
    );
    let many =
        format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-A: b\r\n".repeat(80));
    meet(Kind::HeadTooLarge, raw(address, many.as_bytes()));
    meet(
        Kind::NotImplemented,
        raw(
            address,
            b"POST /internal/start HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        ),
    );
    // What was answered last gives its room back a moment later.
    let room = eventually("there is room", || service.service.shared().event_rooms.take(200).ok());
    let full = client.event("k7", &event(7));
    assert!(full.header("retry-after").is_some());
    meet(Kind::Unavailable, full);
    drop(room);
    // Met elsewhere: a stalled request takes its deadline (tests/it/hostile_clients), a bug needs one
    // (tests/it/secrets), an identity provider that was never there needs one (src/http/auth), certificates need TLS
    // (tests/it/tls.rs), and a draining service is not listening any more.
    let elsewhere = [
        Kind::RequestTimeout,
        Kind::Internal,
        Kind::Draining,
        Kind::KeysUnavailable,
        Kind::CertificateRequired,
    ];
    for kind in Kind::ALL {
        let help = client.get(&format!("/problems/{}", kind.name())).expect(200).json();
        assert_eq!(help["status"], kind.status());
        assert!(met.contains(kind.name()) || elsewhere.contains(kind), "{kind:?} was not met");
    }
    service.stop();
}

#[test]
fn a_field_that_decides_what_a_request_means_is_read_or_refused_and_never_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let address = service.service.api_address();
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let post = |path: &str, fields: &[u8], body: &str| {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(fields);
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body.as_bytes());
        raw(address, &request)
    };
    let event = envelope(1, "s", json!({})).to_string();
    // What a client makes of an umlaut in ISO 8859-1, and what a proxy adds without looking.
    for (path, fields, body, name) in [
        ("/internal/start", &b"X-Sentinel-Process-Id: n\xe4m\r\n"[..], "", "X-Sentinel-Process-Id"),
        ("/internal/log", b"X-Sentinel-Process-Id: n\xe4m\r\n", "{\"process_id\":\"p\",\"message\":\"m\"}", "X-Sentinel-Process-Id"),
        ("/internal/start", b"X-Sentinel-Process-Id: a\r\nX-Sentinel-Process-Id: b\r\n", "", "X-Sentinel-Process-Id"),
        ("/internal/start", b"Idempotency-Key: \xe4\r\n", "{\"process_id\":\"p\"}", "Idempotency-Key"),
        ("/v1/events", b"Content-Type: application/json\r\nIdempotency-Key: a\r\nIdempotency-Key: b\r\n", &event, "Idempotency-Key"),
        ("/v1/events", b"ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\nce-subject: n\xe4m\r\nIdempotency-Key: c\r\n",
         "{}", "ce-subject"),
    ] {
        let refused = post(path, fields, body).expect(400).json();
        assert_eq!(refused["type"], "/problems/invalid-body", "{refused}");
        assert!(refused["detail"].as_str().unwrap().contains(name), "{name}: {refused}");
    }
    let batch = b"Content-Type: application/x-ndjson\r\nIdempotency-Key: \xe4\r\n";
    let refused = post("/v1/events", batch, &event).expect(400).json();
    assert_eq!(refused["type"], "/problems/idempotency-key-on-batch");
    let named =
        post("/internal/start", "X-Sentinel-Process-Id: näm\r\n".as_bytes(), "").expect(202);
    assert_eq!(named.json()["process_id"], "näm");
    // What was accepted before it would be applied before it.
    let mut client = service.client("demo");
    let all = eventually("it is applied", || {
        let all = client.get("/processes?status=all").expect(200).json();
        all["processes"].as_array().is_some_and(|rows| !rows.is_empty()).then_some(all)
    });
    assert_eq!(all["processes"].as_array().map(Vec::len), Some(1), "nothing else was made: {all}");
    service.stop();
}
