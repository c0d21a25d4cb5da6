//! The questions that `sentinel top` asks. This module asks them on a thread of its own, again and again, and goes on
//! where the service is away.

use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender, select};
use serde_json::Value;

use super::row::Row;
use crate::cli::backoff::{jittered, rest_after};
use crate::cli::client::{self, Client};
use crate::cli::exit::{Code, Exit};
use crate::cli::now;
use crate::cli::words::escaped;
use crate::domain::time::Timestamp;

/// Rows of one page …
const PAGE_ROWS: usize = 250;
/// … and so many pages: who has more processes filters on the service, not by eye.
const PAGES_MAX: usize = 4;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Log lines of a process that are shown.
pub(super) const LINES_MAX: usize = 20;
/// How far back these are looked for, one after the other: rows come oldest first, so a short look comes first.
const LOOKS_BACK: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(300),
    Duration::from_secs(7200),
    Duration::from_secs(30 * 86_400),
];
/// A line's own clock may go ahead of the sign of life that it was.
const LOOK_AHEAD: Duration = Duration::from_secs(5);
/// Pages of log rows read in one look.
const LOG_PAGES_MAX: usize = 5;

/// What the screen needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wish {
    /// Those that are over, too.
    pub(super) all: bool,
    pub(super) detail: Option<String>,
}

/// The processes there are.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) all: bool,
    pub(super) rows: Vec<Row>,
    pub(super) is_cut: bool,
}

/// One process, whole. Its text is escaped.
#[derive(Debug)]
pub(super) struct Detail {
    /// As the service knows it.
    pub(super) id: String,
    /// Members of `/status` and their values.
    pub(super) members: Vec<(String, String)>,
    /// The last log lines, the newest last.
    pub(super) lines: Vec<String>,
}

#[derive(Debug)]
pub(super) enum News {
    Processes(Answer),
    Detail(Detail),
    Lost { why: String },
}

pub(super) struct Poll {
    pub(super) client: Client,
    pub(super) interval: Duration,
    pub(super) wish: Wish,
    pub(super) wishes: Receiver<Wish>,
    pub(super) tell: Sender<News>,
}

impl Poll {
    /// Asks until nobody listens any more.
    ///
    /// # Errors
    /// None: what goes wrong is told.
    pub(super) fn work(mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        loop {
            let rest = match self.ask() {
                Ok(news) => {
                    failures = 0;
                    for news in news {
                        if self.tell.send(news).is_err() {
                            return Ok(());
                        }
                    }
                    self.interval
                }
                Err(error) => {
                    failures += 1;
                    let why = format!("{error:#}");
                    if self.tell.send(News::Lost { why }).is_err() {
                        return Ok(());
                    }
                    jittered(rest_after(failures))
                }
            };
            let pause = channel::at(Instant::now() + rest);
            select! {
                recv(self.wishes) -> wish => match wish {
                    Ok(wish) => self.wish = self.wishes.try_iter().last().unwrap_or(wish),
                    Err(_) => return Ok(()),
                },
                recv(pause) -> _ => {}
            }
        }
    }

    fn ask(&mut self) -> anyhow::Result<Vec<News>> {
        let mut news = vec![News::Processes(processes(&mut self.client, self.wish.all)?)];
        if let Some(id) = self.wish.detail.clone() {
            news.push(News::Detail(detail(&mut self.client, &id)?));
        }
        Ok(news)
    }
}

/// A good answer as JSON. None: there is nothing of that name.
fn ask(client: &mut Client, path: &str) -> anyhow::Result<Option<Value>> {
    let answer = client.get(path, PATIENCE)?;
    match answer.status {
        200 => serde_json::from_str(&answer.body).map(Some).map_err(|_| {
            Exit::new(Code::Failed, "the service's answer cannot be read: is it another program?")
                .into()
        }),
        404 => Ok(None),
        _ => Err(Exit::new(Code::Failed, answer.words()).into()),
    }
}

/// The processes, page by page.
pub(super) fn processes(client: &mut Client, all: bool) -> anyhow::Result<Answer> {
    let mut answer = Answer { all, ..Answer::default() };
    let status = if all { "&status=all" } else { "" };
    let first = format!("/processes?limit={PAGE_ROWS}{status}");
    let mut path = first.clone();
    for page in 1..=PAGES_MAX {
        let words = "SENTINEL_URL is not the service: it has no /processes";
        let Some(found) = ask(client, &path)? else {
            return Err(Exit::new(Code::Failed, words).into());
        };
        let rows = found["processes"].as_array().map(Vec::as_slice).unwrap_or_default();
        answer.rows.extend(rows.iter().filter_map(Row::read));
        let Some(next) = found["next_cursor"].as_str() else { break };
        answer.is_cut = page == PAGES_MAX;
        path = format!("{first}&cursor={}", client::segment(next));
    }
    Ok(answer)
}

/// One process and what it said last.
fn detail(client: &mut Client, id: &str) -> anyhow::Result<Detail> {
    let segment = client::segment(id);
    let mut detail = Detail { id: id.to_string(), members: Vec::new(), lines: Vec::new() };
    let Some(status) = ask(client, &format!("/status/{segment}"))? else {
        detail.members.push(("status".to_string(), "there is no such process any more".into()));
        return Ok(detail);
    };
    detail.members = members(&status);
    let life = status["last_life_at"].as_str().or_else(|| status["last_update_at"].as_str());
    let life = life.and_then(Timestamp::parse).unwrap_or_else(now);
    for back in LOOKS_BACK {
        let from = life.minus(back);
        let until = life.plus(LOOK_AHEAD);
        let is_whole = lines(client, &segment, (from, until), &mut detail.lines)?;
        if detail.lines.len() >= LINES_MAX || !is_whole {
            break;
        }
    }
    Ok(detail)
}

/// The members of a status that say something, in its order, those of `metadata` behind a dot.
fn members(status: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut add = |name: String, value: &Value| match value {
        Value::Null => {}
        Value::String(text) => found.push((escaped(&name), escaped(text))),
        value => found.push((escaped(&name), escaped(&value.to_string()))),
    };
    for (name, value) in status.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(inner) => {
                inner.iter().for_each(|(key, value)| add(format!("{name}.{key}"), value))
            }
            None => add(name.clone(), value),
        }
    }
    found
}

/// The last lines within a span of time. Returns whether all of it was read.
fn lines(
    client: &mut Client,
    segment: &str,
    (from, until): (Timestamp, Timestamp),
    into: &mut Vec<String>,
) -> anyhow::Result<bool> {
    let first = format!("/logs/{segment}?limit=1000&from={from}&to={until}");
    let mut path = first.clone();
    into.clear();
    for _ in 0..LOG_PAGES_MAX {
        let Some(found) = ask(client, &path)? else { return Ok(true) };
        let rows = found["logs"].as_array().map(Vec::as_slice).unwrap_or_default();
        into.extend(rows.iter().map(|row| {
            let text = |name: &str| escaped(row[name].as_str().unwrap_or_default());
            // The date says little of the last lines.
            let time = text("logged_at");
            let time = time.get(11..19).unwrap_or(&time);
            format!("{time} {:<5} {}", text("level"), text("message"))
        }));
        into.drain(..into.len().saturating_sub(LINES_MAX));
        let Some(next) = found["next_cursor"].as_str() else { return Ok(true) };
        path = format!("{first}&cursor={}", client::segment(next));
    }
    Ok(false)
}
