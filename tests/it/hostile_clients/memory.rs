//! Who sends without end, and who asks for more than it reads: what that costs the service in memory is bounded. This
//! is looked at from outside, on the real service in a process of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use crate::harness::{Client, InChild, PATIENCE, envelope, eventually, token};

/// What an attack may cost on top of what the service had before: some buffers, and what the allocator keeps of them.
const GROWTH_KIB_MAX: u64 = 24 << 10;

/// Resident memory of a process, counted page by page: `VmRSS` of `/proc/PID/status` may lag behind by some pages for
/// each processor.
pub(super) fn resident_kib(process: u32) -> u64 {
    in_pages_kib(process, "Rss:")
}

/// One line of `/proc/PID/smaps_rollup`.
pub(super) fn in_pages_kib(process: u32, name: &str) -> u64 {
    let sums = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let line = sums.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A raw connection.
fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends pieces until the other side has had enough or takes no more, `bytes_max` at most. Never reads.
fn pour(stream: &mut TcpStream, piece: &[u8], bytes_max: usize) -> usize {
    stream.set_nonblocking(true).unwrap();
    let (mut sent, mut refusals) = (0, 0);
    while sent < bytes_max && refusals < 2000 {
        match stream.write(&piece[sent % piece.len()..]) {
            Ok(bytes) => {
                sent += bytes;
                refusals = 0;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                refusals += 1;
                std::thread::yield_now();
            }
            Err(_) => break,
        }
    }
    stream.set_nonblocking(false).unwrap();
    sent
}

fn status(stream: &mut TcpStream) -> String {
    let mut reply = Vec::new();
    // A peer that is cut off in mid-upload may see a reset behind the reply.
    let _ = stream.take(12).read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

#[test]
fn lengths_that_nobody_has_room_for_cost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let mut client = Client::new(service.api, &token);
    client.get("/ready").expect(200);
    let before = resident_kib(service.id());
    for length in [
        "4611686018427387904",
        "9223372036854775807",
        "18446744073709551615",
        "200000000000",
        "1000000000",
    ] {
        for authorization in [String::new(), format!("Authorization: Bearer {token}\r\n")] {
            let mut stream = connect(service.api);
            let head = format!(
                "POST /internal/log HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Length: {length}\r\n\r\nabc"
            );
            stream.write_all(head.as_bytes()).unwrap();
            let status = status(&mut stream);
            let refused = ["HTTP/1.1 400", "HTTP/1.1 401", "HTTP/1.1 413"];
            assert!(refused.contains(&status.as_str()), "{length}: {status:?}");
        }
    }
    client.get("/ready").expect(200);
    let grown = resident_kib(service.id()).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    assert_eq!(service.terminate(), 0);
}

#[test]
fn a_header_line_of_150_megabytes_is_refused_after_16_kilobytes() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let mut client = Client::new(service.api, "");
    client.get("/ready").expect(200);
    let before = resident_kib(service.id());
    let mut stream = connect(service.api);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ").unwrap();
    let sent = pour(&mut stream, &[b'y'; 64 << 10], 150 << 20);
    assert!(sent < 32 << 20, "{sent} bytes were taken");
    let grown = resident_kib(service.id()).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    client.get("/health").expect(200);
    assert_eq!(service.terminate(), 0);
}

#[test]
fn a_flood_of_pipelined_requests_that_nobody_reads_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let mut client = Client::new(service.api, "");
    client.get("/openapi.json").expect(200);
    let before = resident_kib(service.id());
    // On a worker with a large answer, on the loop with a small one; 16 MB each, and nobody reads.
    let mut floods: Vec<TcpStream> = (0..8).map(|_| connect(service.api)).collect();
    for (number, stream) in floods.iter_mut().enumerate() {
        let path = if number % 2 == 0 { "/openapi.json" } else { "/health" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let sent = pour(stream, request.repeat(1000).as_bytes(), 16 << 20);
        assert!(sent > 1000 * request.len() / 2, "the flood begins: {sent}");
        client.get("/health").expect(200);
        client.get("/ready").expect(200);
    }
    let grown = resident_kib(service.id()).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    drop(floods);
    assert_eq!(service.terminate(), 0);
}

/// How a live stream is asked for: its Accept field and its path. Each is opened by readers that never read.
const LIVE_STREAMS: &[(&str, &str)] =
    &[("application/x-ndjson", "/logs/chatty"), ("text/event-stream", "/logs/chatty")];

#[test]
fn readers_of_a_live_stream_who_never_read_hold_no_worker_and_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let mut client = Client::new(service.api, &token);
    client.post("/internal/start", &json!({"process_id": "chatty"})).expect(202);
    // 16 MB of log rows: far more than sockets hold.
    let line = "m".repeat(4000);
    let row = json!({"process_id": "chatty", "level": "INFO", "message": line});
    let rows = Value::Array(vec![row; 200]);
    for _ in 0..20 {
        client.post("/internal/log", &rows).expect(202);
    }
    for (accept, path) in LIVE_STREAMS {
        let mut reader = connect(service.api);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nAccept: {accept}\r\n\r\n"
        );
        reader.write_all(request.as_bytes()).unwrap();
        assert_eq!(status(&mut reader), "HTTP/1.1 200", "{accept}");
        let before = resident_kib(service.id());
        let mut silent: Vec<TcpStream> = Vec::new();
        let mut costs_kib = Vec::new();
        for _ in 0..3 {
            for _ in 0..20 {
                let mut stream = connect(service.api);
                stream.write_all(request.as_bytes()).unwrap();
                silent.push(stream);
            }
            // All these streams wait for their readers, and there are two workers: both are free.
            for _ in 0..20 {
                client.get("/status/chatty").expect(200);
                client.get("/logs/chatty?limit=1").expect(200);
                client.get("/ready").expect(200);
            }
            costs_kib.push(resident_kib(service.id()).saturating_sub(before));
        }
        println!("{accept}: 20, 40 and 60 silent readers cost {costs_kib:?} KiB");
        // Each may own the piece that its reader has not taken and the next one, of some 256 KiB, in buffers that have
        // grown by doubling.
        assert!(costs_kib[2] < GROWTH_KIB_MAX + 60 * 2048, "{accept}: {costs_kib:?} KiB");
    }
    assert_eq!(service.terminate(), 0);
}

#[test]
fn who_never_reads_does_not_spoil_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[("SENTINEL_SHUTDOWN_TIMEOUT_SEC", "3")]);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let mut client = Client::new(service.api, &token);
    let row = json!({"process_id": "chatty", "level": "INFO", "message": "m".repeat(4000)});
    for _ in 0..10 {
        client.post("/internal/log", &Value::Array(vec![row.clone(); 200])).expect(202);
    }
    // One does not read a stream, one a row of large answers, one never sends the body that it promised.
    let mut silent = connect(service.api);
    let field = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n");
    let request =
        format!("GET /logs/chatty HTTP/1.1\r\n{field}Accept: application/x-ndjson\r\n\r\n");
    silent.write_all(request.as_bytes()).unwrap();
    assert_eq!(status(&mut silent), "HTTP/1.1 200");
    let mut greedy = connect(service.api);
    pour(&mut greedy, b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n", 4 << 20);
    let mut promising = connect(service.api);
    let head = format!(
        "POST /internal/start HTTP/1.1\r\n{field}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    );
    promising.write_all(head.as_bytes()).unwrap();
    assert_eq!(status(&mut promising), "HTTP/1.1 100");
    assert_eq!(service.terminate(), 0, "the stop is clean and within its deadline all the same");
    drop((silent, greedy, promising));
}

#[test]
fn pages_of_large_rows_end_early_and_still_join() {
    let folder = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let token = token(folder.path(), "demo", &["sentinel:write"]);
    let mut client = Client::new(service.api, &token);
    let large = "d".repeat(60_000);
    let row = |n: usize| json!({"process_id": "p", "level": "INFO", "message": format!("{n}"), "details": large});
    client.post("/internal/log", &(0..40).map(row).collect()).expect(202);
    let payload = json!({"filler": "e".repeat(400_000)});
    for n in 0..10 {
        client.event(&format!("k{n}"), &envelope(n, "s", payload.clone())).expect(202);
    }
    eventually("the events are applied", || {
        let stream = client.get("/v1/streams/s");
        (stream.status == 200 && stream.json()["appliedSeq"] == 10).then_some(())
    });
    for (path, list, rows) in [("/logs/p", "logs", 40), ("/v1/events", "events", 10)] {
        let (mut seen, mut pages, mut cursor) = (0, 0, String::new());
        loop {
            let page = client.get(&format!("{path}?limit=1000{cursor}")).expect(200);
            assert!(page.body.len() < 2 << 20, "{path}: a page of {} bytes", page.body.len());
            let page = page.json();
            seen += page[list].as_array().unwrap().len();
            pages += 1;
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, rows, "{path}");
        assert!(pages > 2, "{path}: {pages} pages");
    }
    let (mut after, mut pages) = (0, 0);
    while after < 10 {
        let page = client
            .get(&format!("/v1/streams/s/events?limit=1000&after={after}"))
            .expect(200)
            .json();
        for event in page["events"].as_array().unwrap() {
            after += 1;
            assert_eq!(event["streamSeq"], after);
        }
        assert_eq!(page["after"], after);
        pages += 1;
        assert!(pages <= 10, "every page goes on");
    }
    assert!(pages > 2, "{pages} pages");
    assert_eq!(service.terminate(), 0);
}
