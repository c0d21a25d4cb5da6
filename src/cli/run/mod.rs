//! `sentinel run --name N -- CMD …` watches any command. This module starts it at once, passes its output and
//! signals through, and tells the service about it: start, heartbeats, each line of output, complete or error.
//!
//! The command comes first. Nothing that the service does or fails to do delays it, changes its output or its exit
//! code, which is ours too. While the service is away everything is kept, in bounds, and told later; at the end that
//! goes on for a bounded time. What we have to say ourselves goes to stderr, one line at a time.
//!
//! Threads: one for each output, one that waits for the end of the command, one for signals, one that sends. They
//! are components, so that their ends arrive in one channel; the main thread is the only one that decides.

mod child;
mod lines;
mod outbox;
mod pipe;
mod report;
mod sender;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use crossbeam::channel::{self, Receiver, Sender as ChannelSender, select};
use parking_lot::Mutex;
use rustix::process::Pid;
use signal_hook::low_level::siginfo::Origin;

use self::child::Ending;
use self::outbox::{Line, Outbox, Report, Stream};
use self::report::{Run, Start};
use self::sender::{Outcome, Sender, Transport};
use super::client::Client;
use super::{now, pause, words};
use crate::component::Component;
use crate::config::Overrides;
use crate::domain::ids::ProcessId;
use crate::domain::time::Timestamp;
use crate::telemetry::process::host_name;

/// The last that a command said on stderr goes into the error: so many lines …
const LAST_WORDS_LINES_MAX: usize = 20;
/// … and so many bytes, whichever is less.
const LAST_WORDS_BYTES_MAX: usize = 3_000;
/// The longest type of a process that the service takes.
const TYPE_CHARS_MAX: usize = 50;
/// Signals that wait to be passed on: more than there are kinds of them, since one kind waits once in the kernel.
const SIGNALS_MAX: usize = 16;
/// The components' names, which are how their ends are told apart.
const STDOUT: &str = "run-stdout";
const STDERR: &str = "run-stderr";
const CHILD: &str = "run-child";
const SIGNALS: &str = "run-signals";
const SENDER: &str = "run-sender";

const EXAMPLES: &str = "\
Examples:
  sentinel run --name nightly-backup -- ./backup.sh --full
  sentinel run --name import-17 --type import --heartbeat 10s -- psql -f import.sql

Ends with the exit code of the command: 128 + N when signal N killed it, 127 when there is no such \
command, 126 when it cannot be started. TERM, INT, HUP, QUIT, USR1 and USR2 are passed on; what the \
terminal raises (^C) reaches the command by itself and is not sent twice.

Environment: SENTINEL_URL, SENTINEL_TOKEN or SENTINEL_TOKEN_FILE, SENTINEL_CA_FILE; without a token \
the development key signs one, for SENTINEL_TENANT or demo.";

/// Watch any command: its start, heartbeats, output and end
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The process id, under which /status and /logs know it
    #[arg(long, value_name = "NAME", value_parser = ProcessId::parse)]
    name: ProcessId,
    /// How often to say that the command lives
    #[arg(long, value_name = "PAUSE", default_value = "30s", value_parser = heartbeat_interval)]
    heartbeat: Duration,
    /// What kind of process it is
    #[arg(long = "type", value_name = "TYPE", default_value = "command", value_parser = process_type)]
    process_type: String,
    /// How long to go on telling the service after the command has ended
    #[arg(long, value_name = "PAUSE", default_value = "10s", value_parser = pause)]
    flush_timeout: Duration,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Between one second and one hour, in whole seconds, since that is how the service counts.
fn heartbeat_interval(text: &str) -> Result<Duration, String> {
    let interval = pause(text)?;
    if interval.subsec_nanos() == 0 && (1..=3600).contains(&interval.as_secs()) {
        Ok(interval)
    } else {
        Err("it must be between 1s and 1h, in whole seconds".to_string())
    }
}

/// What the service takes as a type.
fn process_type(text: &str) -> Result<String, String> {
    let fine = (1..=TYPE_CHARS_MAX).contains(&text.chars().count());
    if fine && !text.chars().any(char::is_control) {
        Ok(text.to_string())
    } else {
        Err(format!(
            "it must have 1 to {TYPE_CHARS_MAX} characters, none of them a control character"
        ))
    }
}

/// Runs the command and returns its exit code.
///
/// # Errors
/// When the system gives no thread or no signal handling.
pub fn run(args: RunArgs, overrides: Overrides) -> anyhow::Result<u8> {
    watch(args, move || Client::from_environment(overrides))
}

/// Runs the command and tells the service about it through what `connect` makes. That is called on the sender's
/// thread, so that nothing it does can delay the command.
fn watch<T: Transport>(
    args: RunArgs,
    connect: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<u8> {
    let mut signals = child::catch_signals().context("cannot catch signals")?;
    let started_at = now();
    let started = child::start(&args.command);

    let run = Arc::new(Run::new(args.name));
    let outbox = Arc::new(Outbox::default());
    let program = program_name(&args.command);
    outbox.report(run.start(
        started_at,
        &Start {
            process_type: &args.process_type,
            program: &program,
            host: &host_name(),
            pid: started.as_ref().ok().map(Child::id),
            heartbeat_s: args.heartbeat.as_secs(),
        },
    ));

    let (ended, ends) = channel::bounded(5);
    let (passed, raised) = channel::bounded(SIGNALS_MAX);
    let signals_end = signals.handle();
    let _signals = Component::start(SIGNALS, ended.clone(), move |_| {
        for origin in signals.forever() {
            if passed.send(origin).is_err() {
                break;
            }
        }
        Ok(())
    })?;
    let _sender = start_sender(&run, &outbox, connect, ended.clone())?;

    let mut watch = Watch { outbox, run, ends, raised, ended, outputs: 0, sender_is_over: false };
    let (ending, at, last_words) = match started {
        Err(error) => {
            let ending = Ending::not_started(&program, &error);
            say(ending.words.as_deref().unwrap_or_default());
            (ending, started_at, String::new())
        }
        Ok(child) => watch.follow(child, args.heartbeat)?,
    };
    watch.outbox.report(watch.run.end(at, &ending, &last_words));
    watch.outbox.close();
    watch.flush(args.flush_timeout);
    signals_end.close();
    Ok(ending.code)
}

fn start_sender<T: Transport>(
    run: &Arc<Run>,
    outbox: &Arc<Outbox>,
    connect: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ended: ChannelSender<String>,
) -> io::Result<Component> {
    let (run, outbox) = (Arc::clone(run), Arc::clone(outbox));
    Component::start(SENDER, ended, move |_| {
        match connect() {
            Ok(transport) => Sender::new(&outbox, transport, &run, &say).work(),
            Err(error) => say(&format!("nothing is reported: {error:#}")),
        }
        Ok(())
    })
}

/// The main thread's view of a run.
struct Watch {
    outbox: Arc<Outbox>,
    run: Arc<Run>,
    /// The names of components that are over.
    ends: Receiver<String>,
    raised: Receiver<Origin>,
    ended: ChannelSender<String>,
    /// Outputs of the command that are still read.
    outputs: u32,
    sender_is_over: bool,
}

impl Watch {
    /// Follows the command to its end. Returns how it ended, when, and the last it said on stderr.
    fn follow(
        &mut self,
        mut child: Child,
        heartbeat: Duration,
    ) -> anyhow::Result<(Ending, Timestamp, String)> {
        let pid = Pid::from_child(&child);
        let over = Arc::new(AtomicBool::new(false));
        let last_words = Arc::new(Mutex::new(LastWords::default()));
        let stdout = child.stdout.take().map(OwnedFd::from).context("the command has no stdout")?;
        let stderr = child.stderr.take().map(OwnedFd::from).context("the command has no stderr")?;
        let _stdout = {
            let sink = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            self.start_output(STDOUT, stdout, sink, &over, |_| ())?
        };
        let _stderr = {
            let sink = File::from(io::stderr().as_fd().try_clone_to_owned()?);
            let last_words = Arc::clone(&last_words);
            self.start_output(STDERR, stderr, sink, &over, move |line| last_words.lock().add(line))?
        };
        let _waiter =
            Component::start(CHILD, self.ended.clone(), move |_| Ok(child::wait_for_end(pid)?))?;

        let beats = channel::tick(heartbeat);
        loop {
            select! {
                recv(self.ends) -> name => match name.as_deref() {
                    Ok(CHILD) | Err(_) => break,
                    Ok(name) => self.note_end(name),
                },
                recv(self.raised) -> origin => if let Ok(origin) = origin {
                    child::pass_on(pid, &origin);
                },
                recv(beats) -> _ => self.outbox.beat(|| self.run.heartbeat(now())),
            }
        }
        // Reaped here and nowhere else: no signal is passed on after this line.
        let status = child.wait().context("cannot ask how the command ended")?;
        let ended_at = now();
        over.store(true, Ordering::Release);
        // What is left in the pipes. Only somebody who does not read our output can make this take long, as it would
        // without us; a signal ends it.
        while self.outputs > 0 {
            select! {
                recv(self.ends) -> name => match name.as_deref() {
                    Ok(name) => self.note_end(name),
                    Err(_) => break,
                },
                recv(self.raised) -> origin => if origin.is_ok_and(|origin| child::asks_to_end(&origin)) {
                    break;
                },
            }
        }
        let last_words = last_words.lock().text();
        Ok((Ending::of(status), ended_at, last_words))
    }

    /// Passes one output of the command through to `sink`, and its lines to the outbox.
    fn start_output(
        &mut self,
        name: &'static str,
        source: OwnedFd,
        sink: File,
        over: &Arc<AtomicBool>,
        heard: impl Fn(&str) + Send + 'static,
    ) -> io::Result<Component> {
        let stream = if name == STDOUT { Stream::Stdout } else { Stream::Stderr };
        let (outbox, over) = (Arc::clone(&self.outbox), Arc::clone(over));
        self.outputs += 1;
        Component::start(name, self.ended.clone(), move |_| {
            pipe::follow(File::from(source), &sink, &over, &mut |line| {
                heard(line);
                outbox.say(Line { at: now(), stream, text: line.into() });
            })?;
            Ok(())
        })
    }

    fn note_end(&mut self, name: &str) {
        match name {
            STDOUT | STDERR => self.outputs -= 1,
            SENDER => self.sender_is_over = true,
            _ => {}
        }
    }

    /// Gives the sender until `timeout`, or until a signal, to tell the rest.
    fn flush(&mut self, timeout: Duration) {
        let end = channel::at(Instant::now() + timeout);
        while !self.sender_is_over {
            select! {
                recv(self.ends) -> name => match name.as_deref() {
                    Ok(name) => self.note_end(name),
                    Err(_) => break,
                },
                recv(self.raised) -> origin => if origin.is_ok_and(|origin| child::asks_to_end(&origin)) {
                    break;
                },
                recv(end) -> _ => break,
            }
        }
        self.outbox.abandon();
        let left = self.outbox.left();
        if left.lines + left.reports > 0 {
            let why = self.outbox.last_failure().map(|why| format!(": {why}"));
            say(&format!(
                "the service has not got everything, {} lines and {} reports are missing there{}",
                left.lines,
                left.reports,
                why.unwrap_or_default()
            ));
        }
    }
}

/// The end of stderr: what a failed command said last.
#[derive(Default)]
struct LastWords(VecDeque<String>);

impl LastWords {
    fn add(&mut self, line: &str) {
        if self.0.len() == LAST_WORDS_LINES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(line.to_string());
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for line in self.0.iter().rev() {
            if !text.is_empty() && text.len() + line.len() >= LAST_WORDS_BYTES_MAX {
                break;
            }
            let whole = (0..=LAST_WORDS_BYTES_MAX).rev().find(|at| line.is_char_boundary(*at));
            let line = &line[..whole.unwrap_or(0).min(line.len())];
            text = if text.is_empty() { line.to_string() } else { format!("{line}\n{text}") };
        }
        text
    }
}

/// The program without its folder and arguments.
fn program_name(command: &[OsString]) -> String {
    let program = command.first().map(Path::new).unwrap_or_else(|| Path::new(""));
    let name = program.file_name().unwrap_or(program.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Says something of our own, one line, beside what the command says.
fn say(words: &str) {
    // Whoever closed stderr does not want to hear it.
    let _ = writeln!(io::stderr().lock(), "sentinel run: {}", words::escaped(words));
}

impl Transport for Client {
    fn post(&mut self, report: &Report, patience: Duration) -> Outcome {
        let answer = match Client::post(self, report.path, &report.key, &report.body, patience) {
            Ok(answer) => answer,
            Err(error) => return Outcome::Later { why: format!("{error:#}"), after: None },
        };
        match answer.status {
            200..300 => Outcome::Accepted,
            // A token can be renewed and a role granted while we wait; a proxy in between can come to its senses.
            401 | 403 | 408 | 425 | 429 | 300..=399 | 500.. => {
                Outcome::Later { why: answer.words(), after: answer.retry_after }
            }
            413 => Outcome::TooLarge { why: answer.words() },
            _ => Outcome::Refused { why: answer.words() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_has_whole_seconds_up_to_an_hour() {
        assert_eq!(heartbeat_interval("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(heartbeat_interval("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["0s", "1500ms", "2h", "-5s", "10", "soon"] {
            assert!(heartbeat_interval(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_last_words_are_the_last_and_bounded() {
        let mut words = LastWords::default();
        for number in 0..100 {
            words.add(&format!("line {number}"));
        }
        let text = words.text();
        assert!(text.starts_with("line 80\n") && text.ends_with("\nline 99"), "{text}");
        words.add(&"ä".repeat(4000));
        assert_eq!(words.text().len(), LAST_WORDS_BYTES_MAX);
        words.add("the end");
        assert_eq!(words.text(), "the end");
    }

    #[test]
    fn only_the_name_of_the_program_is_told() {
        assert_eq!(
            program_name(&["/opt/jobs/backup.sh".into(), "--password=x".into()]),
            "backup.sh"
        );
        assert_eq!(program_name(&["/".into()]), "/");
    }
}
