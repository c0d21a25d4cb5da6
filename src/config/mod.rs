//! The configuration: what it means, built once at start from what the user typed. This module is the only door
//! from the environment into the service; behind it there are typed values and no variable is ever read again.
//!
//! Every problem is reported at once, by the variable's name, with what to do about it. What this build cannot do
//! yet is refused and never silently ignored. No issuer means development mode, which a production setting rules
//! out: forgetting the issuer must never open a production service.

mod client;
mod listen;
mod log;
mod mode;
mod oracle;
mod problems;
mod raw;
mod reader;
mod tls;
mod traces;
mod variables;
mod web_address;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use client::Client;
pub use log::{LogFilter, LogFormat, LogSettings, check_filter};
pub use mode::{Mode, Provider};
pub use oracle::{Database, OracleDatabase};
pub use problems::{Problem, Problems, Warning};
pub use raw::{Given, Origin, Overrides, RawConfig, Surroundings};
pub use tls::Tls;
pub use traces::{RootSampler, Sampling, Traces};
pub use variables::{Support, VARIABLES, Variable};
pub use web_address::{WebAddress, WebAddressError};

use reader::Reader;
use variables::NONE;

const HOUR_S: u64 = 3600;
const DAY_S: u64 = 24 * HOUR_S;
/// Workers and listeners where nobody says how many.
const EMBEDDED_WORKERS: u64 = 2;
const ORACLE_WORKERS: u64 = 4;
const ORACLE_LISTENERS: u64 = 2;
/// The folder of the embedded store where systemd names none.
const DATA_FOLDER: &str = "./sentinel-data";

/// What a token without any `sentinel:*` role may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultRole {
    Read,
    None,
}

/// What the configuration means.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which store it is.
    pub database: Database,
    /// The folder of the embedded store, of the development key and of the lock.
    pub data_folder: PathBuf,
    /// Where the API listens. Port 0: any free port.
    pub listen: SocketAddr,
    /// Where the metrics are served; None: off.
    pub metrics: Option<SocketAddr>,
    pub tls: Tls,
    pub mode: Mode,
    pub default_role: DefaultRole,
    pub http_loops: usize,
    pub worker_threads: usize,
    pub listener_threads: usize,
    pub log_writer_threads: usize,
    /// Bound of each channel, in events.
    pub queue_capacity: usize,
    pub log_batch_rows: usize,
    pub connections_max: usize,
    pub connections_per_ip_max: usize,
    pub body_bytes_max: usize,
    pub batch_bytes_max: usize,
    /// Of all bodies that are on their way in, and again of all payloads that wait to be durable.
    pub inflight_bytes_max: usize,
    pub heartbeat_interval: Duration,
    pub process_timeout: Duration,
    pub retention: Duration,
    pub idempotency_window: Duration,
    pub log_keep: Duration,
    pub free_bytes_min: u64,
    pub shutdown_timeout: Duration,
    pub log: LogSettings,
    /// Where traces go; None: nowhere, and they cost nothing.
    pub traces: Option<Traces>,
    pub client: Client,
    effective: Vec<Effective>,
}

/// The value of one setting as `check-config` shows it: secrets are masked already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub name: &'static str,
    pub value: String,
    pub origin: Origin,
}

impl Config {
    /// Understands the environment of this process and the flags.
    ///
    /// # Errors
    /// [`Problems`] names every problem. The exit code for it is 78.
    pub fn from_environment(overrides: Overrides) -> Result<(Self, Vec<Warning>), Problems> {
        Surroundings::of_this_process(overrides, Self::load)
    }

    /// Understands what the user typed.
    ///
    /// # Errors
    /// [`Problems`] names every problem. The exit code for it is 78.
    pub fn load(surroundings: &Surroundings<'_>) -> Result<(Self, Vec<Warning>), Problems> {
        let mut problems = Problems::default();
        let mut warnings = Vec::new();
        let raw = RawConfig::gather(surroundings, |_| true, &mut problems, &mut warnings);
        let mut reader = Reader::new(&raw, &mut problems);
        refuse_what_is_missing(&mut reader);
        let database = oracle::database(&mut reader);
        let is_oracle = oracle::is_named(&reader);
        if !is_oracle {
            oracle::warn_of_what_does_nothing(&reader, &mut warnings);
        }
        let data_folder = data_folder(&mut reader, &raw);
        let mode = mode::mode(&mut reader, surroundings);
        let listen = listen::listen(&mut reader, &raw, &mode);
        let metrics_port = reader.port("PROMETHEUS_METRICS_PORT");
        if metrics_port != 0 && metrics_port == listen.port() {
            reader.problem(
                "PROMETHEUS_METRICS_PORT",
                format!(
                    "{metrics_port} is also SENTINEL_HTTP_PORT; choose another port, or 0 for none"
                ),
            );
        }
        if mode == Mode::Development {
            mode::refuse_development_in_production(&mut reader, &raw, listen.ip());
            if is_oracle && reader.is_given("SENTINEL_DATABASE") {
                reader.problem("SENTINEL_DATABASE", mode::RULES_OUT_DEVELOPMENT);
            }
        }
        let production = mode != Mode::Development;
        let tls = tls::tls(&mut reader, surroundings, production, &mut warnings);
        let plaintext = reader.word("SENTINEL_PLAINTEXT", NONE, &[("allow", ())]);
        // A file that was named and cannot be used has its own problem.
        let encrypted = tls.api.is_some() || reader.is_given("SENTINEL_TLS_CERT_FILE");
        if production && !encrypted && !listen.ip().is_loopback() && plaintext.is_none() {
            reader.problem(
                "SENTINEL_PLAINTEXT",
                format!(
                    "{} would be served without TLS; set SENTINEL_TLS_CERT_FILE and SENTINEL_TLS_KEY_FILE, \
                     SENTINEL_PLAINTEXT=allow where a mesh or proxy terminates TLS, or SENTINEL_LISTEN_ADDRESS=127.0.0.1",
                    listen.ip()
                ),
            );
        }
        let default_role = reader
            .word(
                "SENTINEL_DEFAULT_ROLE",
                "read",
                &[("read", DefaultRole::Read), ("none", DefaultRole::None)],
            )
            .unwrap_or(DefaultRole::Read);
        let connections_max = reader.count("SENTINEL_MAX_CONNECTIONS", 1..=1_000_000);
        let loops = if surroundings.cores <= 3 { 1 } else { surroundings.cores / 2 };
        let loops = u64::try_from(loops.min(64)).unwrap_or(1);
        // Reads of a database wait for the network, so more of them are under way at once.
        let workers = reader.number_or(
            "SENTINEL_WORKER_THREADS",
            if is_oracle { ORACLE_WORKERS } else { EMBEDDED_WORKERS },
            1..=256,
        );
        let listeners = if is_oracle {
            reader.number_or("SENTINEL_LISTENER_THREADS", ORACLE_LISTENERS, 1..=64)
        } else {
            listener_threads(&mut reader, &mut warnings)
        };
        let config = Self {
            database,
            listen,
            metrics: (metrics_port != 0).then(|| SocketAddr::new(listen.ip(), metrics_port)),
            tls,
            mode,
            default_role,
            http_loops: usize::try_from(reader.number_or("SENTINEL_HTTP_LOOPS", loops, 1..=64))
                .unwrap_or(1),
            worker_threads: usize::try_from(workers).unwrap_or(1),
            listener_threads: usize::try_from(listeners).unwrap_or(1),
            log_writer_threads: reader.count("SENTINEL_LOG_WRITER_THREADS", 1..=16),
            queue_capacity: reader.count("SENTINEL_QUEUE_CAPACITY", 1..=1_000_000),
            log_batch_rows: reader.count("SENTINEL_LOG_BATCH_SIZE", 1..=100_000),
            connections_max,
            connections_per_ip_max: connections_per_ip(&mut reader, connections_max),
            body_bytes_max: reader.count("SENTINEL_MAX_BODY_BYTES", 1024..=67_108_864),
            inflight_bytes_max: reader.count("SENTINEL_INFLIGHT_BYTES", 65_536..=68_719_476_736),
            batch_bytes_max: reader.count("SENTINEL_MAX_BATCH_BYTES", 1024..=1_073_741_824),
            heartbeat_interval: reader.seconds("SENTINEL_HEARTBEAT_INTERVAL_SEC", 1, 1..=DAY_S),
            process_timeout: reader.seconds("SENTINEL_PROCESS_TIMEOUT_SEC", 1, 1..=365 * DAY_S),
            retention: reader.seconds("SENTINEL_RETENTION_DAYS", DAY_S, 1..=36_500),
            idempotency_window: reader.seconds("SENTINEL_IDEMPOTENCY_HOURS", HOUR_S, 1..=8_760),
            log_keep: reader.seconds("SENTINEL_LOG_KEEP_HOURS", HOUR_S, 0..=8_760),
            free_bytes_min: reader.number("SENTINEL_MIN_FREE_BYTES", 0..=1 << 50),
            shutdown_timeout: reader.seconds("SENTINEL_SHUTDOWN_TIMEOUT_SEC", 1, 1..=HOUR_S),
            log: log::log(&mut reader, surroundings),
            traces: traces::traces(&mut reader, surroundings, &mut warnings),
            client: client::client(&mut reader, data_folder.clone()),
            data_folder,
            effective: Vec::new(),
        };
        check_pairs(&mut reader, &config);
        if let Database::Oracle(database) = &config.database {
            let (workers, listeners) = (config.worker_threads, config.listener_threads);
            oracle::check_sessions(
                &mut reader,
                database,
                workers,
                listeners,
                config.log_writer_threads,
            );
        }
        let effective = reader.finish();
        if problems.0.is_empty() {
            Ok((Self { effective, ..config }, warnings))
        } else {
            Err(problems)
        }
    }

    /// The effective value of every variable, in the order of [`VARIABLES`].
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }

    /// What `sentinel check-config` prints: every variable, its effective value and where that comes from.
    pub fn print(&self) -> String {
        let width = self.effective.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
        let value_width =
            self.effective.iter().map(|entry| entry.value.len()).max().unwrap_or(0).min(48);
        let mut text = String::new();
        for Effective { name, value, origin } in &self.effective {
            let missing = variables::find(name).is_some_and(|row| row.support == Support::NotYet);
            let remark = if missing { ", not supported by this build yet" } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:width$}  {value:value_width$}  ({origin}{remark})");
        }
        text
    }
}

/// Settings of issues to come: setting one now is a problem, never a thing that does nothing.
fn refuse_what_is_missing(reader: &mut Reader<'_>) {
    for variable in VARIABLES.iter().filter(|variable| variable.support == Support::NotYet) {
        if let Some(given) = reader.given(variable.name) {
            reader.note(variable.name, &given.value, &given.origin);
            reader.problem(variable.name, "is not supported by this build yet; unset it");
        }
    }
}

fn data_folder(reader: &mut Reader<'_>, raw: &RawConfig) -> PathBuf {
    // systemd separates several folders by colons; the first one is ours.
    let default = raw
        .surrounding("STATE_DIRECTORY")
        .and_then(|folders| folders.split(':').next())
        .filter(|folder| !folder.is_empty())
        .unwrap_or(DATA_FOLDER);
    let Some(text) = reader.text("SENTINEL_DATABASE", &format!("sqlite://{default}")) else {
        return PathBuf::from(default);
    };
    if text.starts_with("oracle://") {
        return PathBuf::from(default);
    }
    if let Some(path) = text.strip_prefix("sqlite://") {
        if path.is_empty() {
            reader.problem("SENTINEL_DATABASE", "sqlite:// names no folder; write sqlite://PATH");
        }
        for name in ["ORACLE_TNS_NAME", "ORACLE_HOST"] {
            if let Some(given) = reader.given(name) {
                let typed = match &given.origin {
                    Origin::Environment(typed) => typed.as_str(),
                    Origin::Default | Origin::File(_) | Origin::Flag(_) => name,
                };
                reader.problems.add(
                    format!("SENTINEL_DATABASE and {typed}"),
                    "name two different stores; unset one of them",
                );
            }
        }
        return PathBuf::from(path);
    } else {
        // The text may hold a password, so it is not repeated.
        reader.problem(
            "SENTINEL_DATABASE",
            "is neither sqlite://PATH, such as sqlite:///var/lib/sentinel, nor oracle://ALIAS",
        );
    }
    PathBuf::from(default)
}

/// The embedded store has one queue with one cursor, so there is one listener.
fn listener_threads(reader: &mut Reader<'_>, warnings: &mut Vec<Warning>) -> u64 {
    const NAME: &str = "SENTINEL_LISTENER_THREADS";
    if reader.number(NAME, 1..=64) > 1 {
        reader.note(NAME, "1", &Origin::Default);
        warnings.push(Warning {
            name: NAME.to_string(),
            what: "the embedded store has one listener; 1 is used".to_string(),
        });
    }
    1
}

/// One address never gets more than all together; only a contradiction that was typed is a problem.
fn connections_per_ip(reader: &mut Reader<'_>, connections_max: usize) -> usize {
    let per_ip = reader.count("SENTINEL_MAX_CONNECTIONS_PER_IP", 1..=1_000_000);
    if per_ip > connections_max {
        if reader.is_given("SENTINEL_MAX_CONNECTIONS_PER_IP") {
            reader.problems.add(
                "SENTINEL_MAX_CONNECTIONS_PER_IP and SENTINEL_MAX_CONNECTIONS",
                format!("{per_ip} of one address is more than {connections_max} in all; change one of them"),
            );
        } else {
            reader.note(
                "SENTINEL_MAX_CONNECTIONS_PER_IP",
                &connections_max.to_string(),
                &Origin::Default,
            );
        }
    }
    per_ip.min(connections_max)
}

/// Settings that are each fine and contradict each other.
fn check_pairs(reader: &mut Reader<'_>, config: &Config) {
    let too_large = |small: u64, large: u64| small > large;
    let bytes = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    for (small_name, small, large_name, large) in [
        (
            "SENTINEL_MAX_BODY_BYTES",
            bytes(config.body_bytes_max),
            "SENTINEL_MAX_BATCH_BYTES",
            bytes(config.batch_bytes_max),
        ),
        (
            "SENTINEL_HEARTBEAT_INTERVAL_SEC",
            config.heartbeat_interval.as_secs(),
            "SENTINEL_PROCESS_TIMEOUT_SEC",
            config.process_timeout.as_secs(),
        ),
    ] {
        if too_large(small, large) {
            reader.problems.add(
                format!("{small_name} and {large_name}"),
                format!("{small} must not be above {large}; change one of them"),
            );
        }
    }
}

#[cfg(test)]
mod tests;
