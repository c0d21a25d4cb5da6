//! `sentinel load`: how much the service takes, and how fast it answers. This module is the load generator.
//!
//! One thread drives all connections, so that measuring costs little beside what is measured. Requests go out either
//! as fast as answers come (each connection has one in flight) or at a fixed rate. At a fixed rate latency counts
//! from the moment a request was due and not from when it could be sent, so that a stall of the service shows in
//! every request that it held up. Every answer is checked; one that should not be makes the command fail.

mod alarm;
mod drive;
mod freshness;
mod idle;
mod link;
mod reply;
mod tally;
mod wire;
mod workload;

#[cfg(test)]
mod tests;

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use self::drive::{Driver, Pace};
use self::freshness::Sampler;
use self::tally::Tally;
use self::workload::{Events, Logs, Plain, Seeds, Workload};
use super::exit::{Code, Exit};

/// Processes that `status` and `logs` ask about: enough that the answer is not always the same row.
const SEEDED: usize = 1000;

/// Connections at most: each needs a file descriptor, and the usual limit is 1024 for a client.
const CONNECTIONS_MAX: usize = 10_000;

/// Events or rows in one request at most: what the service takes.
const BATCH_MAX: usize = 10_000;

const LONG_ABOUT: &str = "\
Sends requests to a running service and reports how fast it answers.

Without --rate every connection sends its next request as soon as the last one is answered. With --rate requests are \
due at fixed moments, and latency counts from those. The command fails when an answer is not what it should be.

Examples:
  sentinel load                                        as many single events as 64 connections can send, for 30 s
  sentinel load --batch 500 --connections 4            NDJSON batches of 500 events
  sentinel load --rate 10000 --freshness --json r.json 10,000 events/s, and how soon they are visible
  sentinel load --duplicates 0.1 --invalid 0.01        a tenth is sent again, a hundredth is refused with 400
  sentinel load --mode status --connections 8          GET /status/{id} of 1,000 processes
  sentinel load --mode logs --batch 1000               log rows, 1,000 a request
  sentinel load --mode constant                        GET /health: what the front alone can do
  sentinel load --mode idle --connections 10000        connections that are held and not used";

/// What is asked of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// POST /v1/events
    Events,
    /// GET /status/{id} of processes that are started before
    Status,
    /// POST /internal/log
    Logs,
    /// GET /health
    Constant,
    /// GET /health once on each connection, which is then held unused and asked again at the end
    Idle,
}

/// The options of `sentinel load`.
#[derive(Debug, Clone, clap::Args)]
#[command(about = "Sends requests to a running service and reports how fast it answers", long_about = LONG_ABOUT)]
pub struct LoadArgs {
    /// Where the service answers (http or https; the files of the environment apply).
    #[arg(long, env = "SENTINEL_URL", default_value = "http://127.0.0.1:8090")]
    pub url: String,
    /// What to ask of the service.
    #[arg(long, value_enum, default_value_t = Mode::Events)]
    pub mode: Mode,
    /// Events (rows, requests) per second; 0: as fast as it goes.
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// How long to send, such as 30s, 500ms or 5m.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub duration: Duration,
    /// Stop after so many requests, if that is earlier.
    #[arg(long)]
    pub requests: Option<u64>,
    /// Connections, each with one request in flight.
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Events or log rows in one request; above 1 events go as NDJSON.
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// Share of events that are sent again, with the same key and payload, after they were acknowledged.
    #[arg(long, default_value_t = 0.0)]
    pub duplicates: f64,
    /// Share of events that are broken and have to be refused with 400.
    #[arg(long, default_value_t = 0.0)]
    pub invalid: f64,
    /// Share of events that drive a process (`process.started`, `process.progress`, …).
    #[arg(long, default_value_t = 0.0)]
    pub processes: f64,
    /// Streams that the events are spread over.
    #[arg(long, default_value_t = 10_000)]
    pub streams: usize,
    /// Size of an event's payload, or of a log row's message.
    #[arg(long, default_value_t = 500)]
    pub payload_bytes: usize,
    /// Also measure how soon after its acknowledgement an event is visible, on a sample of them: the progress of a
    /// process in its status, every other event in its stream.
    #[arg(long)]
    pub freshness: bool,
    /// A further status that is counted as a rejection and is no failure, such as 503 to see how overload is answered.
    #[arg(long, value_name = "STATUS")]
    pub accept: Vec<u16>,
    /// Write the results to this file as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Sends the load and prints what came of it.
///
/// # Errors
/// When the service cannot be reached, or when an answer was not what it should be.
pub fn run(args: LoadArgs, token: String, tls: Option<Arc<ClientConfig>>) -> anyhow::Result<()> {
    let tally = measure(&args, &token, tls, true)?;
    writeln!(std::io::stdout(), "{}", tally.summary())?;
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(&tally.json())?;
        std::fs::write(file, json + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    ensure!(tally.is_clean(), "the service gave answers that it should not give");
    Ok(())
}

fn measure(
    args: &LoadArgs,
    token: &str,
    tls: Option<Arc<ClientConfig>>,
    loud: bool,
) -> anyhow::Result<Tally> {
    check(args).map_err(|error| Exit::new(Code::Usage, error.to_string()))?;
    let server = Server::parse(&args.url, token, tls)?;
    if server.tls.is_some() {
        idle::try_tls(&server)?;
    }
    let mut tally = Tally::new(args.accept.clone());
    if args.mode == Mode::Idle {
        idle::hold(&server, args.connections, args.duration, loud, &mut tally)?;
        return Ok(tally);
    }
    let mut driver = Driver::connect(server.clone(), args.connections)?;
    let mut workload: Box<dyn Workload> = match args.mode {
        Mode::Events => Box::new(Events::new(args, &server, workload::tenant_of(token)?)),
        Mode::Logs => Box::new(Logs::new(args, &server)),
        Mode::Status => Box::new(Plain::status(&server, SEEDED)),
        Mode::Constant | Mode::Idle => Box::new(Plain::constant(&server)),
    };
    if matches!(args.mode, Mode::Status | Mode::Logs) {
        let mut seeds = Seeds::new(&server, SEEDED);
        let mut seeded = Tally::new(Vec::new());
        let pace = Pace { interval: None, duration: SEEDING_MAX, requests: None, loud: false };
        driver.drive(&mut seeds, &pace, &mut seeded, None)?;
        ensure!(seeded.is_clean(), "the processes could not be started:\n{}", seeded.summary());
    }
    let sampler = if args.freshness && args.mode == Mode::Events {
        Some(Sampler::start(server.clone())?)
    } else {
        None
    };
    let interval = (args.rate > 0.0).then(|| {
        let each = f64::from(u32::try_from(args.batch).unwrap_or(u32::MAX)) / args.rate;
        Duration::from_secs_f64(each)
    });
    let pace = Pace { interval, duration: args.duration, requests: args.requests, loud };
    driver.drive(&mut *workload, &pace, &mut tally, sampler.as_ref())?;
    if let Some(sampler) = sampler {
        sampler.finish(&mut tally);
    }
    Ok(tally)
}

/// How long the processes of `status` and `logs` may take to be started.
const SEEDING_MAX: Duration = Duration::from_secs(30);

/// Refuses options that make no sense together with their type.
fn check(args: &LoadArgs) -> anyhow::Result<()> {
    let share = |share: f64| (0.0..=1.0).contains(&share);
    ensure!((1..=CONNECTIONS_MAX).contains(&args.connections), "--connections is 1 to 10000");
    ensure!((1..=BATCH_MAX).contains(&args.batch), "--batch is 1 to 10000");
    ensure!(args.streams > 0, "--streams is at least 1");
    ensure!(args.rate.is_finite() && args.rate >= 0.0, "--rate is a number from 0 on");
    ensure!(
        share(args.duplicates) && share(args.invalid) && share(args.processes),
        "--duplicates, --invalid and --processes are shares from 0.0 to 1.0"
    );
    Ok(())
}

/// Reads `30s`, `500ms`, `5m`, `1h` or plain seconds.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().with_context(|| format!("{text:?} is no duration"))?;
    let seconds = match &text[digits.len()..] {
        "ms" => number / 1000.0,
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        unit => bail!("{unit:?} is no unit of time: use ms, s, m or h"),
    };
    Duration::try_from_secs_f64(seconds).with_context(|| format!("{text:?} is no duration"))
}

/// Whom TLS is spoken with, and how.
#[derive(Debug, Clone)]
struct Secure {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Where requests go, and what each of them carries.
#[derive(Debug, Clone)]
struct Server {
    address: SocketAddr,
    /// None: plaintext.
    tls: Option<Secure>,
    /// The fields that every request has, each with its line end.
    fields: String,
}

impl Server {
    fn parse(url: &str, token: &str, tls: Option<Arc<ClientConfig>>) -> anyhow::Result<Self> {
        let (rest, port) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
            (Some(rest), _) => (rest, 80),
            (None, Some(rest)) => (rest, 443),
            (None, None) => bail!("{url}: give http://host:port or https://host:port"),
        };
        let host = rest.trim_end_matches('/');
        ensure!(
            !host.is_empty() && !host.contains(['/', '?', '@']),
            "{url}: give scheme, host and port only"
        );
        let bare = host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err());
        let target = if bare { format!("{host}:{port}") } else { host.to_string() };
        let address = target
            .to_socket_addrs()
            .with_context(|| format!("look up {host}"))?
            .next()
            .with_context(|| format!("{host} has no address"))?;
        let mut fields = format!("Host: {host}\r\n");
        if !token.is_empty() {
            ensure!(
                token.bytes().all(|b| b.is_ascii_graphic()),
                "the token holds blanks or control characters"
            );
            fields.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        let tls = tls.map(|config| {
            let name = target.rsplit_once(':').map_or(host, |(name, _)| name);
            let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(name).context("the host's name cannot be checked")?;
            anyhow::Ok(Secure { config, name })
        });
        Ok(Self { address, tls: tls.transpose()?, fields })
    }
}
