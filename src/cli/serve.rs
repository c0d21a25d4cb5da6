//! `sentinel serve` runs the service until a signal or a fault ends it. This module is the `main` thread: signals,
//! systemd, the first words to a newcomer, and the order in which everything ends.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::Context;
use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender, select};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::exit::{self, Code, Exit};
use super::watchdog::{self, Watchdog};
use super::words::escaped;
use crate::component::Component;
use crate::config::{Config, Database, Mode, Warning};
use crate::service::{Parts, Service, Waiting, wall_clock};
use crate::store::{StoreError, sqlite};
use crate::telemetry::logging;

/// More signals than this at once are one.
const SIGNALS_MAX: usize = 8;
/// How long the store may be out of reach at the start, before the service gives up (exit 69).
const STORE_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a store that is out of reach.
const STORE_PAUSE: Duration = Duration::from_millis(500);
/// Between two attempts at a database that is out of reach.
const DATABASE_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks at the files of the certificates: whoever renews them need not tell us.
const CERTIFICATES_LOOK: Duration = Duration::from_secs(2);

/// Where the client commands look for the service unless `SENTINEL_URL` says otherwise.
const SERVICE_DEFAULT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8090));

/// Lets a crash write no core file: tokens and payloads lie in memory. The hard limit stays, so that who looks for a
/// fault may raise the limit again with `prlimit`.
fn leave_no_core() {
    let limit = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    if let Err(error) = setrlimit(Resource::Core, limit) {
        log::warn!("a crash may leave a core file, with what is in memory: {error}");
    }
}

/// Serves until it is told to stop.
///
/// # Errors
/// When the service cannot start, when a thread ends uninvited, or when one misses the deadline of the stop.
pub fn run(config: &Config, warnings: &[Warning]) -> anyhow::Result<()> {
    let log = logging::init(&config.log)?;
    leave_no_core();
    for warning in warnings {
        log::warn!("{warning}");
    }
    log::info!(version = env!("CARGO_PKG_VERSION"); "starting");
    let (signals, mut listener, handle) = signals(service_ended())?;
    let Some(service) = start(config, &signals)? else {
        handle.close();
        let _ = listener.join_by(Instant::now() + Duration::from_secs(1));
        return Ok(());
    };
    let metrics =
        service.metrics_address().map_or_else(|| "off".to_owned(), |address| address.to_string());
    log::info!(address:% = service.api_address(), metrics = metrics.as_str(); "serving");
    greet(config, &service);
    watchdog::ready(service.api_address());
    let uninvited = wait(&service, &signals, &log);
    watchdog::stopping();
    log::info!("stopping");
    let stopped = service.stop();
    handle.close();
    let _ = listener.join_by(Instant::now() + Duration::from_secs(1));
    match (stopped, uninvited) {
        (Ok(()), None) => {
            log::info!("stopped");
            Ok(())
        }
        // The error of a failed thread says more than its name; what the store says decides the exit code.
        (Err(error), Some(name)) => Err(ended_uninvited(&name, error)),
        (Ok(()), Some(name)) => {
            Err(Exit::new(Code::ThreadEnded, format!("the thread {name} ended uninvited")).into())
        }
        (Err(error), None) => Err(error),
    }
}

/// Starts the service, and waits for its store where somebody must mend that first. None: told to stop meanwhile.
fn start(config: &Config, signals: &Receiver<i32>) -> anyhow::Result<Option<Service>> {
    let begun = Instant::now();
    loop {
        let error = match Service::start(config, wall_clock(), Parts::ALL) {
            Ok(service) => return Ok(Some(service)),
            Err(error) => error,
        };
        let mendable = matches!(
            error.chain().find_map(|cause| cause.downcast_ref::<StoreError>()),
            Some(StoreError::NoSpace { .. } | StoreError::Disconnected { .. })
        );
        let of_the_system = error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some());
        if !mendable && of_the_system && exit::code_of(&error) == Code::Failed {
            return Err(Exit::new(Code::System, format!("{error:#}")).into());
        }
        if !mendable || begun.elapsed() >= STORE_PATIENCE {
            return Err(error);
        }
        let tried = Instant::now();
        let waiting = Waiting::start(config, &format!("{error:#}"))?;
        // Only what a start would try is worth a new attempt, and a look costs nothing.
        let told = loop {
            match signals.recv_timeout(STORE_PAUSE) {
                Ok(SIGHUP) | Err(RecvTimeoutError::Timeout) => {}
                Ok(_) | Err(RecvTimeoutError::Disconnected) => break true,
            }
            let is_mended = match config.database {
                Database::Embedded => sqlite::can_write(&config.data_folder),
                // An attempt is the only look there is, and each costs the database a session.
                Database::Oracle(_) => tried.elapsed() >= DATABASE_PAUSE,
            };
            if is_mended || begun.elapsed() >= STORE_PATIENCE {
                break false;
            }
        };
        waiting.stop(config.shutdown_timeout);
        if told {
            return Ok(None);
        }
    }
}

fn ended_uninvited(name: &str, error: anyhow::Error) -> anyhow::Error {
    let of_the_store = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<StoreError>())
        .any(|error| matches!(error, StoreError::Io { .. } | StoreError::Corrupt { .. }));
    let words = format!("the thread {name} ended uninvited");
    if of_the_store {
        error.context(words)
    } else {
        Exit::new(Code::ThreadEnded, format!("{words}: {error:#}")).into()
    }
}

/// Where the signal thread says that it is over: nobody needs to know.
fn service_ended() -> Sender<String> {
    channel::unbounded().0
}

/// Signals as a channel, so that they can be waited for together with other things.
fn signals(ended: Sender<String>) -> anyhow::Result<(Receiver<i32>, Component, Handle)> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("listen for signals")?;
    let handle = signals.handle();
    let (sender, receiver) = channel::bounded(SIGNALS_MAX);
    let listener = Component::start("signals", ended, move |_| {
        for signal in signals.forever() {
            // One too many is the same as one before it.
            let _ = sender.try_send(signal);
        }
        Ok(())
    })?;
    Ok((receiver, listener, handle))
}

/// Waits for a reason to stop. Returns the name of the thread that ended uninvited, if that is the reason.
fn wait(service: &Service, signals: &Receiver<i32>, log: &logging::Handle) -> Option<String> {
    let mut watchdog = Watchdog::from_surroundings(Instant::now());
    // Whoever renews certificates need not tell us.
    let pause = |watchdog: &Watchdog, now| {
        let pause = watchdog.pause(now);
        if service.has_certificates() { pause.min(CERTIFICATES_LOOK) } else { pause }
    };
    loop {
        let now = Instant::now();
        watchdog.look(now, || service.stalled(now));
        select! {
            recv(signals) -> signal => match signal {
                Ok(SIGHUP) => watchdog::reloading(|| {
                    log.reload();
                    log::info!("the log filter is read again");
                    service.reload_certificates();
                }),
                Ok(signal) => {
                    log::info!(signal; "told to stop");
                    return None;
                }
                Err(_) => return Some("signals".to_owned()),
            },
            recv(service.ended()) -> name => {
                let name = name.unwrap_or_default();
                service.note_ended(&name);
                log::error!(thread_name = name.as_str(); "a thread ended uninvited");
                return Some(name);
            }
            default(pause(&watchdog, now)) => {
                service.look_at_certificates();
            }
        }
    }
}

/// The first words to a newcomer: a session to paste. Only in development mode and for somebody who reads them.
fn greet(config: &Config, service: &Service) {
    if config.mode != Mode::Development {
        return;
    }
    let address = service.api_address();
    let program = std::env::args_os().next().map(|name| name.to_string_lossy().into_owned());
    let program = program.unwrap_or_else(|| "sentinel".to_owned());
    let program = quoted(&escaped(&program));
    let folder = escaped(&config.data_folder.display().to_string());
    let store = quoted(&format!("sqlite://{folder}"));
    // The client commands find the service where it is by default.
    let elsewhere = if address == SERVICE_DEFAULT {
        String::new()
    } else {
        format!("export SENTINEL_URL=http://{address}\n  ")
    };
    let words = format!(
        "\nProcess Sentinel serves on http://{address} (development mode, loopback only, store in {folder}).\n\
         Paste this into another terminal:\n\n  \
         export TOKEN=$({program} --database {store} token --tenant demo --role sentinel:write)\n  \
         curl -X POST -H \"Authorization: Bearer $TOKEN\" -H 'X-Sentinel-Process-Id: nightly-import' {address}/internal/start\n  \
         curl -H \"Authorization: Bearer $TOKEN\" -H 'X-Sentinel-Process-Id: nightly-import' {address}/internal/progress \
         -d '{{\"current_step\":\"LOADING\",\"progress_percent\":40}}'\n  \
         curl -H \"Authorization: Bearer $TOKEN\" {address}/status/nightly-import\n  \
         {elsewhere}{program} --database {store} run --name nightly-import -- sh -c 'for i in 1 2 3; do echo step $i; sleep 1; done'\n\n\
         http://{address}/ready says how it is, http://{address}/openapi.json what it can do. Ctrl-C stops it.\n\n"
    );
    let _ = io::stdout().lock().write_all(words.as_bytes());
}

/// A word for a shell to read as one.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._:@%+=,-".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}
