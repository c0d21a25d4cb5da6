//! `sentinel tail ID` shows what a process says, as it says it. This module prints log rows and changes of status in
//! the order in which they come, and decides when there is nothing more to wait for.
//!
//! Each row is printed once, also where the connection is cut: every row comes with an id that names its place, and
//! the last one that was printed is where the next connection goes on. One thread reads the stream, one asks for the
//! status, one waits for signals; the main thread is the only one that prints and decides.

mod follower;
mod line;

use std::io::{self, BufWriter, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use crossbeam::channel::{self, Receiver, Sender, select};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::follower::{News, Told};
use self::line::{Row, Status};
use super::client::{self, Client};
use super::exit::{Code, Exit};
use super::{now, pause, words};
use crate::component::{Component, Stop};
use crate::config::Overrides;
use crate::domain::ids::ProcessId;
use crate::domain::log_row::Level;
use crate::domain::time::Timestamp;

/// News that wait to be printed. A stdout that nobody reads holds up the stream and nothing else.
const NEWS_MAX: usize = 1000;
/// Between two looks at the status.
const STATUS_PAUSE: Duration = Duration::from_secs(1);
/// How long one look may take.
const STATUS_PATIENCE: Duration = Duration::from_secs(10);
/// A stream says something every 15 s. One that has been silent for three times that is no longer there.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// What a shell adds to the number of the signal that ended a command.
const CODE_SIGNAL: i32 = 128;

const EXAMPLES: &str = "\
Examples:
  sentinel tail nightly-import
  sentinel tail nightly-import --level warn --since 10m
  sentinel tail nightly-import --until-end && echo 'it has ended'
  sentinel tail nightly-import --no-follow --json | jq -r '.log.message'

Changes of status are looked for every second, so that those in between are not seen; each log row is seen, once. \
Times are UTC. Control characters are printed as escapes. With --json each line is {\"log\":…} or {\"status\":…}. \
A connection that is cut is made again, and stderr says so.

COMPLETED, FAILED and ARCHIVED are ends; EXPIRED is not, since the next sign of life undoes it. \
Ends with 0 at the end, 1 when the service refuses, 128 + N on signal N (^C: 130).

Environment: SENTINEL_URL, SENTINEL_TOKEN or SENTINEL_TOKEN_FILE, SENTINEL_CA_FILE; without a token the \
development key signs one, for SENTINEL_TENANT or demo.";

/// Follow the log rows and the status of a process
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TailArgs {
    /// The process id
    #[arg(value_name = "ID", value_parser = ProcessId::parse)]
    process: ProcessId,
    /// Only rows of this level and the more severe ones: trace, debug, info, warn, error, fatal
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    level: Option<Level>,
    /// Only rows of the last 10m, say, or from a time like 2026-01-28T10:30:00Z on
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Print the rows that are there, and end
    #[arg(long, conflicts_with = "until_end")]
    no_follow: bool,
    /// End, with 0, when the process has ended and all of its rows are printed
    #[arg(long)]
    until_end: bool,
    /// Print JSON, one object on a line
    #[arg(long)]
    json: bool,
}

/// From when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Ago(Duration),
    At(Timestamp),
}

fn level(text: &str) -> Result<Level, String> {
    Level::parse(text).ok_or_else(|| "it is trace, debug, info, warn, error or fatal".to_string())
}

fn since(text: &str) -> Result<Since, String> {
    match Timestamp::parse(text) {
        Some(time) => Ok(Since::At(time)),
        None => pause(text)
            .map(Since::Ago)
            .map_err(|_| "write it as 30s, 5m or 1h, or as 2026-01-28T10:30:00Z".to_string()),
    }
}

/// Follows the process. Returns the exit code.
///
/// # Errors
/// When the service refuses, cannot be reached at the start, or nothing can be printed.
pub fn run(args: &TailArgs, overrides: Overrides) -> anyhow::Result<u8> {
    // Before anything else, so that what is set wrongly is said once and at once.
    Client::from_environment(overrides.clone())?;
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    let (ended, _ends) = channel::unbounded();
    let (raise, raised) = channel::bounded(1);
    let _signals = Component::start("tail-signals", ended.clone(), move |_| {
        for signal in signals.forever() {
            // One is enough.
            let _ = raise.try_send(signal);
        }
        Ok(())
    })?;
    let (teller, news) = channel::bounded(NEWS_MAX);
    let mut tail = Tail {
        target: target(args, now()),
        path: format!("/status/{}", client::segment(args.process.as_str())),
        json: args.json,
        until_end: args.until_end,
        overrides,
        ended,
        teller,
        follower: None,
        generation: 0,
        is_last: args.no_follow,
        place: None,
        was_reached: false,
        is_cut: false,
        status: None,
        last_line: None,
        out: BufWriter::new(io::stdout()),
    };
    match tail.watch(&news, &raised, !args.no_follow) {
        // Whoever does not read on has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(0),
        done => done,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(kind)
}

/// What to ask for.
fn target(args: &TailArgs, now: Timestamp) -> String {
    let mut target = format!("/logs/{}?", client::segment(args.process.as_str()));
    if let Some(level) = args.level {
        target.push_str(&format!("level={}&", level.as_str()));
    }
    match args.since {
        None => {}
        Some(Since::Ago(pause)) => target.push_str(&format!("from={}&", now.minus(pause))),
        Some(Since::At(time)) => target.push_str(&format!("from={time}&")),
    }
    target
}

/// The main thread's view.
struct Tail {
    target: String,
    path: String,
    json: bool,
    until_end: bool,
    overrides: Overrides,
    ended: Sender<String>,
    teller: Sender<Told>,
    follower: Option<Component>,
    /// Which connection is listened to: what one before it says is too late.
    generation: u32,
    /// The stream at hand ends with the newest row.
    is_last: bool,
    /// Behind the last row that was printed.
    place: Option<String>,
    /// A stream began once: what goes wrong from now on may come right again.
    was_reached: bool,
    is_cut: bool,
    status: Option<Status>,
    /// The line of an end that is printed once everything that was said before it is.
    last_line: Option<String>,
    out: BufWriter<io::Stdout>,
}

impl Tail {
    fn watch(
        &mut self,
        news: &Receiver<Told>,
        raised: &Receiver<i32>,
        follows: bool,
    ) -> anyhow::Result<u8> {
        self.connect()?;
        let _status = if follows { Some(self.start_status()?) } else { None };
        let mut heard_at = Instant::now();
        loop {
            if news.is_empty() {
                self.out.flush()?;
            }
            select! {
                recv(raised) -> signal => {
                    self.print_last_line()?;
                    self.out.flush()?;
                    let code = CODE_SIGNAL + signal.unwrap_or(SIGTERM);
                    return Ok(u8::try_from(code).unwrap_or(u8::MAX));
                }
                recv(news) -> told => {
                    let Ok(told) = told else { return Ok(Code::Failed.number()) };
                    let is_of_status = matches!(told.news, News::Status(_));
                    if !is_of_status && told.generation != self.generation {
                        continue;
                    }
                    if !is_of_status {
                        heard_at = Instant::now();
                    }
                    if self.hear(told.news)? {
                        self.out.flush()?;
                        return Ok(0);
                    }
                }
                default((heard_at + SILENCE_MAX).saturating_duration_since(Instant::now())) => {
                    say(&format!("nothing was heard for {} s: connecting anew", SILENCE_MAX.as_secs()));
                    self.is_cut = true;
                    heard_at = Instant::now();
                    self.connect()?;
                }
            }
        }
    }

    /// Acts on news. True: there is nothing more to wait for.
    fn hear(&mut self, news: News) -> anyhow::Result<bool> {
        match news {
            News::Began => {
                self.was_reached = true;
                if std::mem::take(&mut self.is_cut) {
                    say("connected again, nothing is missing");
                }
            }
            News::Alive => {}
            News::Row { id, row } => {
                self.print_row(&row)?;
                self.place = Some(id);
            }
            News::UpToDate => {
                self.print_last_line()?;
                return Ok(true);
            }
            News::Cut { why, .. } if !self.was_reached => {
                return Err(Exit::new(Code::Failed, why).into());
            }
            News::Cut { why, rest } => {
                self.is_cut = true;
                let seconds = rest.as_secs_f64();
                say(&format!("the stream is cut: {why}; connecting again in {seconds:.1} s"));
            }
            News::Refused { why } => return Err(Exit::new(Code::Failed, why).into()),
            News::Status(text) => {
                let is_over = self.hear_status(&text)?;
                if is_over && self.until_end && !self.is_last {
                    // What it said before its end is committed by now: one look from here to the newest row.
                    self.is_last = true;
                    self.connect()?;
                }
            }
        }
        Ok(false)
    }

    /// Prints a status that differs from the one before. Returns whether it is an end.
    fn hear_status(&mut self, text: &str) -> anyhow::Result<bool> {
        let Ok(status) = serde_json::from_str::<Status>(text) else {
            say("the service tells a status that cannot be read");
            return Ok(false);
        };
        let is_over = status.is_over();
        if self.status.as_ref().is_none_or(|before| before.differs(&status)) {
            self.print_last_line()?;
            self.last_line = Some(if self.json {
                format!("{{\"status\":{}}}", line::escaped_json(text))
            } else {
                status.line()
            });
            if !(is_over && self.until_end) {
                self.print_last_line()?;
            }
            self.status = Some(status);
        }
        Ok(is_over)
    }

    fn print_last_line(&mut self) -> io::Result<()> {
        self.last_line.take().map_or(Ok(()), |line| writeln!(self.out, "{line}"))
    }

    fn print_row(&mut self, text: &str) -> anyhow::Result<()> {
        if self.json {
            writeln!(self.out, "{{\"log\":{}}}", line::escaped_json(text))?;
            return Ok(());
        }
        match serde_json::from_str::<Row>(text) {
            Ok(row) => write!(self.out, "{}", row.lines())?,
            Err(_) => say("the service sends a row that cannot be read"),
        }
        Ok(())
    }

    /// Begins a connection behind the last row that was printed, in the place of the one before.
    fn connect(&mut self) -> anyhow::Result<()> {
        self.generation += 1;
        let follower = follower::Follower {
            overrides: self.overrides.clone(),
            target: format!("{}follow={}", self.target, !self.is_last),
            ends: self.is_last,
            place: self.place.clone(),
            generation: self.generation,
            teller: self.teller.clone(),
        };
        // The one before ends when it next looks up; nobody waits for it.
        if let Some(mut before) = self.follower.take() {
            before.stop();
        }
        let start = move |stop: Stop| follower.work(&stop);
        self.follower = Some(Component::start("tail-rows", self.ended.clone(), start)?);
        Ok(())
    }

    fn start_status(&self) -> anyhow::Result<Component> {
        let (path, overrides, teller) =
            (self.path.clone(), self.overrides.clone(), self.teller.clone());
        let component = Component::start("tail-status", self.ended.clone(), move |stop| {
            let mut client = Client::from_environment(overrides)?;
            let mut tag: Option<String> = None;
            loop {
                let known: Vec<(&str, &str)> =
                    tag.iter().map(|tag| ("if-none-match", tag.as_str())).collect();
                // What is wrong with the service, the stream tells as well.
                // An answer that was cut in the middle is asked for again: its tag would hide what it did not say.
                if let Ok(answer) = client.get_with(&path, &known, STATUS_PATIENCE)
                    && answer.status == 200
                    && serde_json::from_str::<Status>(&answer.body).is_ok()
                {
                    tag = answer.etag;
                    let told = Told { generation: 0, news: News::Status(answer.body) };
                    if teller.send(told).is_err() {
                        return Ok(());
                    }
                }
                if !stop.sleep(STATUS_PAUSE) {
                    return Ok(());
                }
            }
        })?;
        Ok(component)
    }
}

/// Says something of our own, beside what the process says.
fn say(words: &str) {
    // Whoever closed stderr does not want to hear it.
    let _ = writeln!(io::stderr().lock(), "sentinel tail: {}", words::escaped(words));
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TailArgs,
    }

    fn parse(line: &str) -> Result<TailArgs, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.args)
    }

    #[test]
    fn what_is_asked_for_follows_from_the_flags() {
        let now = Timestamp::parse("2026-01-28T10:30:00Z").unwrap();
        let asked = |line| target(&parse(line).unwrap(), now);
        assert_eq!(asked("tail a/b"), "/logs/a%2Fb?");
        assert_eq!(
            asked("tail p --level warn --since 10m"),
            "/logs/p?level=WARN&from=2026-01-28T10:20:00Z&"
        );
        assert_eq!(
            asked("tail p --since 2026-01-28T10:30:00.5Z"),
            "/logs/p?from=2026-01-28T10:30:00.5Z&"
        );
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        for bad in [
            "tail",
            "tail p --level loud",
            "tail p --since yesterday",
            "tail p --no-follow --until-end",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
