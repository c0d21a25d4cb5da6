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
    meet(
        Kind::InvalidBody,
        client.request("POST", "/v1/events", &[json_type, ("Idempotency-Key", "k")], b"{"),
    );
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
    meet(Kind::TooLarge, raw(address, long.as_bytes()));
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
