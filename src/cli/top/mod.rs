//! `sentinel top` shows all processes on a terminal, as they are now. This module owns the terminal and the threads, and
//! turns keys and answers into frames.
//!
//! One thread asks the service, one reads keys, one waits for signals; the main thread draws. What is shown is in
//! [`screen`], which knows neither a terminal nor the service, and [`draw`] puts it onto cells. The terminal is given
//! back as it was, however the program ends.

mod draw;
mod poll;
mod row;
mod screen;

use std::io::{self, IsTerminal, Write};
use std::panic;
use std::time::{Duration, Instant};

use anyhow::Context;
use crossbeam::channel::{self, Receiver, Sender, select};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use ratatui::layout::Rect;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::poll::{News, Poll, Wish};
use self::screen::{Act, Screen};
use super::client::Client;
use super::exit::{Code, Exit};
use super::{now, pause};
use crate::component::Component;
use crate::config::Overrides;

/// Ages move on without news.
const CLOCK_PAUSE: Duration = Duration::from_secs(1);
/// How often the service may be asked.
const INTERVAL_MIN: Duration = Duration::from_millis(500);
/// Keys that wait: more than anybody types while one frame is drawn.
const EVENTS_MAX: usize = 100;
/// Answers that wait: the thread that asks is told to wait by the one that draws.
const NEWS_MAX: usize = 4;
/// How wide a frame is at least that goes into a pipe.
const ONCE_COLUMNS: u16 = 80;
/// And at most, for the longest ids: what is wider is cut.
const ONCE_COLUMNS_MAX: u16 = 240;
/// What a shell adds to the number of the signal that ended a command.
const CODE_SIGNAL: i32 = 128;

const EXAMPLES: &str = "\
Examples:
  sentinel top
  sentinel top --filter import --all
  sentinel top --once | head -20

Keys: q quits; arrows, PgUp and PgDn move; s sorts by the next column; / filters as you type (Enter keeps it, Esc \
drops it); a shows all processes or the unfinished ones; Enter shows one process with its last log lines, Esc goes back.

AGE is the time since the last sign of life; ! behind it: silent for longer than the process said. %/MIN is the progress \
between the last two reports that differ, or since the start. At most 1,000 processes are read.

Environment: SENTINEL_URL, SENTINEL_TOKEN or SENTINEL_TOKEN_FILE, SENTINEL_CA_FILE; without a token the \
development key signs one, for SENTINEL_TENANT or demo.";

/// Show processes on a terminal, as they are now
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct TopArgs {
    /// How often to ask the service
    #[arg(long, value_name = "PAUSE", default_value = "2s", value_parser = interval)]
    interval: Duration,
    /// Show those that are over, too
    #[arg(long)]
    all: bool,
    /// Only processes whose id, name, type, status or step holds this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Print one frame as plain text, and end
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = pause(text)?;
    if interval >= INTERVAL_MIN {
        Ok(interval)
    } else {
        Err("it must be 500ms or more".to_string())
    }
}

/// Shows processes until the user has seen enough. Returns the exit code.
///
/// # Errors
/// When there is no terminal, or the service does not answer the first question of `--once`.
pub fn run(args: &TopArgs, overrides: Overrides) -> anyhow::Result<u8> {
    let mut client = Client::from_environment(overrides)?;
    let mut screen = Screen::new(client.url(), args.all, &args.filter);
    if args.once {
        let answer = poll::processes(&mut client, args.all)?;
        screen.hear(News::Processes(answer), now());
        super::print(&plain_frame(&mut screen))?;
        return Ok(0);
    }
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        let words = "stdin and stdout are no terminal: use --once for one frame of text";
        return Err(Exit::new(Code::Usage, words).into());
    }
    show(screen, client, args.interval)
}

/// One frame as text, as high as it takes: as wide as the terminal, and in a pipe as wide as it takes.
fn plain_frame(screen: &mut Screen) -> String {
    let columns = match size() {
        Ok((columns, _)) if io::stdout().is_terminal() => columns,
        _ => draw::columns_for(screen, now()).clamp(ONCE_COLUMNS, ONCE_COLUMNS_MAX),
    };
    // Where there is no row, words take the place of one.
    let rows = u16::try_from(screen.visible().len().max(1)).unwrap_or(u16::MAX - 10);
    let area = Rect::new(0, 0, columns, rows + draw::HEAD_ROWS);
    let mut buffer = Buffer::empty(area);
    draw::list(screen, now(), area, &mut buffer, false);
    draw::text(&buffer)
}

fn show(mut screen: Screen, client: Client, interval: Duration) -> anyhow::Result<u8> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot listen for signals")?;
    let (ended, ends) = channel::unbounded();
    let (raise, raised) = channel::bounded(1);
    let _signals = Component::start("top-signals", ended.clone(), move |_| {
        for signal in signals.forever() {
            // One is enough.
            let _ = raise.try_send(signal);
        }
        Ok(())
    })?;
    let (tell, news) = channel::bounded(NEWS_MAX);
    let (wish, wishes) = channel::bounded(EVENTS_MAX);
    let poll = Poll { client, interval, wish: screen.wish(), wishes, tell };
    let _poll = Component::start("top-poll", ended.clone(), move |_| poll.work())?;

    let mut glass = Glass::open()?;
    let keys = start_keys(ended)?;
    let code = watch(&mut screen, &mut glass, &Ears { keys, news, raised, ends }, &wish);
    drop(glass);
    code
}

/// Reads keys on a thread of its own, since a read waits for as long as nobody types.
fn start_keys(ended: Sender<String>) -> anyhow::Result<Receiver<Event>> {
    let (press, keys) = channel::bounded(EVENTS_MAX);
    Component::start("top-keys", ended, move |_| {
        while press.send(event::read()?).is_ok() {}
        Ok(())
    })?;
    Ok(keys)
}

/// Everything that can wake the main thread.
struct Ears {
    keys: Receiver<Event>,
    news: Receiver<News>,
    raised: Receiver<i32>,
    ends: Receiver<String>,
}

fn watch(
    screen: &mut Screen,
    glass: &mut Glass,
    ears: &Ears,
    wish: &Sender<Wish>,
) -> anyhow::Result<u8> {
    loop {
        glass.terminal.draw(|frame| {
            let area = frame.area();
            draw::frame(screen, now(), area, frame.buffer_mut());
        })?;
        let clock = channel::at(Instant::now() + CLOCK_PAUSE);
        select! {
            recv(ears.raised) -> signal => {
                let code = CODE_SIGNAL + signal.unwrap_or(SIGTERM);
                return Ok(u8::try_from(code).unwrap_or(u8::MAX));
            }
            recv(ears.ends) -> name => {
                let name = name.unwrap_or_default();
                return Err(Exit::new(Code::Failed, format!("the thread {name} has ended")).into());
            }
            recv(ears.news) -> news => if let Ok(news) = news {
                screen.hear(news, now());
            },
            recv(ears.keys) -> key => if let Ok(Event::Key(key)) = key
                && key.kind != KeyEventKind::Release
            {
                let before = screen.wish();
                if screen.press(key) == Act::Quit {
                    return Ok(0);
                }
                if screen.wish() != before {
                    // Where so many wait, the newest of them comes with the next question.
                    let _ = wish.try_send(screen.wish());
                }
            },
            recv(clock) -> _ => {}
        }
    }
}

/// The terminal while it is ours.
struct Glass {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
}

impl Glass {
    fn open() -> anyhow::Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            // First, or the words are lost with the other screen.
            give_back();
            before(what);
        }));
        enable_raw_mode().context("the terminal cannot be taken over")?;
        execute!(io::stdout(), EnterAlternateScreen)?;
        Ok(Self { terminal: Terminal::new(CrosstermBackend::new(io::stdout()))? })
    }
}

impl Drop for Glass {
    fn drop(&mut self) {
        let _ = self.terminal.show_cursor();
        give_back();
    }
}

/// Makes the terminal what it was. There is nobody to tell where that fails.
fn give_back() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen);
    let _ = disable_raw_mode();
    let _ = io::stdout().flush();
}

#[cfg(test)]
mod tests;
