//! What a request in flight holds, and how often it allocates (goal G9): the whole service in this process, under an
//! allocator that counts.
//!
//! In flight is taken literally. The intake thread is held up while so many posts are under way, one on each of so many
//! connections, and what is allocated then and was not before is theirs. A `/status` is never waiting anywhere, so for
//! it stands everything that it allocates, which is more than it ever holds, and the part of the arena that it takes.
//! The memory of `SQLite` is not counted: it belongs to a thread's session and not to a request.
//!
//! This module prints a table and fails when a request in flight holds more than [`GOAL_BYTES`].

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::RwLock;
use sentinel::config::{Config, Overrides, Surroundings};
use sentinel::domain::event::{Envelope, Receipt, Verdict};
use sentinel::domain::ids::TenantId;
use sentinel::domain::time::Timestamp;
use sentinel::http::auth::{Role, development, unix_seconds};
use sentinel::service::{Parts, Service, wall_clock};
use sentinel::store::{self, IntakeSession};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What a request in flight may hold.
const GOAL_BYTES: usize = 4096;
/// Posts in flight at once, each on a connection of its own.
const IN_FLIGHT: usize = 512;
/// Requests that are counted one by one.
const COUNTED: usize = 5_000;
/// The payload of an event.
const PAYLOAD_BYTES: usize = 500;

/// Works only while nobody holds the gate shut.
struct Gated(Arc<RwLock<()>>);

impl IntakeSession for Gated {
    fn accept(&mut self, now: Timestamp, batch: Vec<Envelope>) -> store::Result<Vec<Verdict>> {
        let _open = self.0.read();
        let receipt = |envelope: Envelope| {
            Verdict::Accepted(Receipt {
                event_id: envelope.event_id,
                stream: envelope.stream,
                stream_seq: 1,
                received_at: now,
            })
        };
        Ok(batch.into_iter().map(receipt).collect())
    }
}

fn config(folder: &Path) -> anyhow::Result<Config> {
    let database = format!("sqlite://{}", folder.display());
    let lookup = |name: &str| match name {
        "SENTINEL_DATABASE" => Some(database.clone()),
        "PROMETHEUS_METRICS_PORT" => Some("0".to_owned()),
        _ => None,
    };
    let surroundings = Surroundings {
        lookup: &lookup,
        names: &[],
        read_file: &|path| std::fs::read_to_string(path),
        overrides: Overrides { database: None, bind: Some("tcp://127.0.0.1:0".to_owned()) },
        cores: 2,
        terminal: false,
    };
    let (config, _) =
        Config::load(&surroundings).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    Ok(config)
}

/// The requests that are looked at. `serial` makes each a new one.
#[derive(Clone, Copy)]
enum Asked {
    Status,
    Event,
    Heartbeat,
}

impl Asked {
    fn name(self) -> &'static str {
        match self {
            Self::Status => "GET /status/{id}",
            Self::Event => "POST /v1/events (one, 500 B)",
            Self::Heartbeat => "POST /internal/heartbeat",
        }
    }

    fn request(self, token: &str, serial: usize) -> Vec<u8> {
        let (line, fields, body) = match self {
            Self::Status => ("GET /status/process-1", String::new(), String::new()),
            Self::Heartbeat => (
                "POST /internal/heartbeat",
                "X-Sentinel-Process-Id: process-1\r\n".to_owned(),
                "{}".to_owned(),
            ),
            Self::Event => (
                "POST /v1/events",
                format!("Idempotency-Key: key-{serial}\r\n"),
                format!(
                    r#"{{"eventId":"{:08x}-0000-7000-8000-{:012x}","tenantId":"bench","source":"heap","type":"HeapMeasured","timestampUtc":"2026-01-28T10:30:00Z","schemaVersion":1,"streamKey":"stream-{}","payload":{{"text":"{}"}}}}"#,
                    serial,
                    serial,
                    serial % 100,
                    "x".repeat(PAYLOAD_BYTES - 11)
                ),
            ),
        };
        format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{fields}\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// A client that allocates nothing while it is counted.
struct Client {
    stream: TcpStream,
    answer: Box<[u8]>,
}

impl Client {
    fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, answer: vec![0; 16 * 1024].into_boxed_slice() })
    }

    fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request)?;
        self.take_answer()
    }

    /// Answers here are short and come in one piece.
    fn take_answer(&mut self) -> anyhow::Result<()> {
        let read = self.stream.read(&mut self.answer)?;
        let text = &self.answer[..read];
        anyhow::ensure!(text.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(text));
        Ok(())
    }
}

fn live_bytes() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

/// The average of a histogram of the service, as it was counted until now: sum and count.
fn arena(service: &Service) -> anyhow::Result<(f64, f64)> {
    let mut stream = TcpStream::connect(service.api_address())?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).context("no such metric")?;
        line.rsplit(' ').next().and_then(|word| word.parse::<f64>().ok()).context("no number")
    };
    Ok((value("sentinel_request_arena_bytes_sum")?, value("sentinel_request_arena_bytes_count")?))
}

fn token(folder: &Path) -> anyhow::Result<String> {
    let (tenant, hour) = (TenantId::parse("bench")?, Duration::from_secs(3600));
    development::token(folder, &tenant, &[Role::Operate], hour, unix_seconds())
}

/// Bytes held by one of [`IN_FLIGHT`] requests that wait for the intake thread.
fn held(asked: Asked) -> anyhow::Result<usize> {
    let folder = tempfile::tempdir()?;
    let gate = Arc::new(RwLock::new(()));
    let intake = Box::new(Gated(Arc::clone(&gate)));
    let service =
        Service::start_with_intake(&config(folder.path())?, wall_clock(), Parts::ALL, intake)?;
    let token = token(folder.path())?;
    let mut clients = (0..IN_FLIGHT)
        .map(|_| Client::connect(service.api_address()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut held = 0;
    // The first round makes what is made once: queues, tables, buffers of the loop.
    for round in 0..2 {
        let requests: Vec<_> =
            (0..IN_FLIGHT).map(|index| asked.request(&token, round * IN_FLIGHT + index)).collect();
        let before = settled();
        let shut = gate.write();
        for (client, request) in clients.iter_mut().zip(&requests) {
            client.stream.write_all(request)?;
        }
        held = settled().saturating_sub(before) / IN_FLIGHT;
        drop(shut);
        for client in &mut clients {
            client.take_answer()?;
        }
    }
    service.stop()?;
    Ok(held)
}

/// The bytes that are allocated once nothing is added any more.
fn settled() -> usize {
    let mut now = live_bytes();
    for _ in 0..50 {
        std::thread::park_timeout(Duration::from_millis(200));
        let later = live_bytes();
        if later.abs_diff(now) < IN_FLIGHT {
            break;
        }
        now = later;
    }
    now
}

/// What one request costs when nothing else is asked, the store's work for it included.
struct Cost {
    allocations: f64,
    bytes: f64,
    arena_bytes: f64,
}

fn cost(asked: Asked) -> anyhow::Result<Cost> {
    let folder = tempfile::tempdir()?;
    let service = Service::start(&config(folder.path())?, wall_clock(), Parts::ALL)?;
    let token = token(folder.path())?;
    let mut client = Client::connect(service.api_address())?;
    client.ask(&Asked::Heartbeat.request(&token, 0))?;
    let requests: Vec<_> = (0..COUNTED + 100).map(|index| asked.request(&token, index)).collect();
    let (warming, counted) = requests.split_at(100);
    warming.iter().try_for_each(|request| client.ask(request))?;
    let (sum_before, count_before) = arena(&service)?;
    settled();
    let before = ALLOCATOR.stats();
    counted.iter().try_for_each(|request| client.ask(request))?;
    let after = ALLOCATOR.stats();
    let (sum_after, count_after) = arena(&service)?;
    service.stop()?;
    let each = |total: usize| total as f64 / counted.len() as f64;
    Ok(Cost {
        allocations: each(after.allocations - before.allocations),
        bytes: each(after.bytes_allocated - before.bytes_allocated),
        arena_bytes: (sum_after - sum_before) / (count_after - count_before),
    })
}

fn main() -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "request | allocations | bytes allocated in all | bytes of the arena | bytes held in flight"
    )?;
    let mut worst = 0;
    for asked in [Asked::Status, Asked::Event, Asked::Heartbeat] {
        let Cost { allocations, bytes, arena_bytes } = cost(asked)?;
        let held = match asked {
            // It waits nowhere; it cannot hold more than everything it ever took.
            Asked::Status => format!("at most {:.0}", bytes + arena_bytes),
            Asked::Event | Asked::Heartbeat => {
                let held = held(asked)?;
                worst = worst.max(held);
                format!("{held}")
            }
        };
        writeln!(
            out,
            "{} | {allocations:.1} | {bytes:.0} | {arena_bytes:.0} | {held}",
            asked.name()
        )?;
    }
    anyhow::ensure!(
        worst <= GOAL_BYTES,
        "a request in flight holds {worst} bytes: more than {GOAL_BYTES}"
    );
    Ok(())
}
