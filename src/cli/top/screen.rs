//! What `sentinel top` shows, and what a key changes in it. This module knows neither a terminal nor the service.

use std::collections::HashMap;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::poll::{Answer, Detail, News, Wish};
use super::row::Row;
use crate::cli::words::escaped;
use crate::domain::time::Timestamp;

/// The longest filter: as long as a process id.
const FILTER_CHARS_MAX: usize = 100;
/// Rows that one page key moves by.
const PAGE_ROWS: usize = 10;

/// The order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// What needs somebody first.
    Urgency,
    Name,
    Step,
    /// The most first.
    Progress,
    /// The earliest first.
    Due,
    /// The longest silence first.
    Age,
    /// The fastest first.
    Rate,
}

impl Sort {
    const ALL: [Self; 7] =
        [Self::Urgency, Self::Name, Self::Step, Self::Progress, Self::Due, Self::Age, Self::Rate];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Urgency => "urgency",
            Self::Name => "process",
            Self::Step => "step",
            Self::Progress => "progress",
            Self::Due => "eta",
            Self::Age => "age",
            Self::Rate => "rate",
        }
    }

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// Puts rows into order. Equals, and what lacks the value, follow by their ids.
    fn sort(self, rows: &mut [Row]) {
        let number = |value: Option<f64>| value.unwrap_or(-1.0);
        let time = |value: Option<Timestamp>| value.map_or(i64::MAX, Timestamp::micros);
        rows.sort_by(|a, b| {
            let order = match self {
                Self::Urgency => a.urgency().cmp(&b.urgency()),
                Self::Name => std::cmp::Ordering::Equal,
                Self::Step => (a.step.is_empty(), &a.step).cmp(&(b.step.is_empty(), &b.step)),
                Self::Progress => number(b.percent).total_cmp(&number(a.percent)),
                Self::Due => time(a.due_at).cmp(&time(b.due_at)),
                Self::Age => time(a.life_at).cmp(&time(b.life_at)),
                Self::Rate => number(b.rate).total_cmp(&number(a.rate)),
            };
            order.then_with(|| a.id.cmp(&b.id))
        });
    }
}

/// How the connection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Up,
    /// Since when, and why. What is shown is from before.
    Lost {
        since: Timestamp,
        why: String,
    },
}

/// What pressing a key asks of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Stay,
    Quit,
}

pub(super) struct Screen {
    pub(super) url: String,
    pub(super) link: Link,
    pub(super) rows: Vec<Row>,
    /// There are more than were read.
    pub(super) is_cut: bool,
    pub(super) read_at: Option<Timestamp>,
    /// Processes that gave a sign of life, in a second.
    pub(super) lives_per_s: Option<f64>,
    pub(super) all: bool,
    pub(super) sort: Sort,
    pub(super) filter: String,
    pub(super) is_typing: bool,
    /// The id of the selected process.
    pub(super) selected: Option<String>,
    /// The first row that is drawn.
    pub(super) offset: usize,
    /// The process that fills the screen.
    pub(super) opened: Option<String>,
    pub(super) detail: Option<Detail>,
}

impl Screen {
    pub(super) fn new(url: &str, all: bool, filter: &str) -> Self {
        Self {
            url: escaped(url),
            link: Link::Connecting,
            rows: Vec::new(),
            is_cut: false,
            read_at: None,
            lives_per_s: None,
            all,
            sort: Sort::Urgency,
            filter: filter.chars().filter(|letter| !letter.is_control()).collect(),
            is_typing: false,
            selected: None,
            offset: 0,
            opened: None,
            detail: None,
        }
    }

    /// What to ask the service for.
    pub(super) fn wish(&self) -> Wish {
        Wish { all: self.all, detail: self.opened.clone() }
    }

    /// The rows that pass the filter, in order.
    pub(super) fn visible(&self) -> Vec<&Row> {
        let wanted = escaped(&self.filter).to_lowercase();
        self.rows.iter().filter(|row| wanted.is_empty() || row.holds(&wanted)).collect()
    }

    /// Which of the visible rows is selected.
    pub(super) fn selected_at(&self, visible: &[&Row]) -> usize {
        let found = visible.iter().position(|row| Some(&row.raw_id) == self.selected.as_ref());
        found.unwrap_or(0)
    }

    /// Takes in what the service says.
    pub(super) fn hear(&mut self, news: News, now: Timestamp) {
        match news {
            News::Processes(answer) => {
                self.link = Link::Up;
                if answer.all == self.all {
                    self.take(answer, now);
                }
            }
            News::Detail(detail) => {
                if self.opened.as_ref() == Some(&detail.id) {
                    self.detail = Some(detail);
                }
            }
            News::Lost { why } => {
                let since = match &self.link {
                    Link::Lost { since, .. } => *since,
                    Link::Connecting | Link::Up => now,
                };
                self.link = Link::Lost { since, why: escaped(&why) };
            }
        }
    }

    fn take(&mut self, answer: Answer, now: Timestamp) {
        let before: HashMap<&str, &Row> =
            self.rows.iter().map(|row| (row.raw_id.as_str(), row)).collect();
        let mut rows = answer.rows;
        let mut lives = 0;
        for row in &mut rows {
            if let Some(earlier) = before.get(row.raw_id.as_str()) {
                row.note_rate(earlier);
                lives += u32::from(row.life_at > earlier.life_at);
            }
        }
        let took = self.read_at.map(|at| now.since(at).as_secs_f64()).filter(|took| *took > 0.1);
        self.lives_per_s = took.map(|took| f64::from(lives) / took);
        self.sort.sort(&mut rows);
        self.rows = rows;
        self.is_cut = answer.is_cut;
        self.read_at = Some(now);
    }

    /// Does what a key means.
    pub(super) fn press(&mut self, key: KeyEvent) -> Act {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Act::Quit;
        }
        if self.is_typing {
            self.type_filter(key.code);
            return Act::Stay;
        }
        match key.code {
            KeyCode::Char('q') => return Act::Quit,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left if self.opened.is_some() => {
                self.opened = None;
                self.detail = None;
            }
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Up | KeyCode::Char('k') => self.step(|at| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.step(|at| at + 1),
            KeyCode::PageUp => self.step(|at| at.saturating_sub(PAGE_ROWS)),
            KeyCode::PageDown => self.step(|at| at + PAGE_ROWS),
            KeyCode::Home => self.step(|_| 0),
            KeyCode::End => self.step(|_| usize::MAX),
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                self.sort.sort(&mut self.rows);
            }
            KeyCode::Char('/') if self.opened.is_none() => self.is_typing = true,
            KeyCode::Char('a') => self.all = !self.all,
            KeyCode::Enter if self.opened.is_none() => {
                let visible = self.visible();
                self.opened = visible.get(self.selected_at(&visible)).map(|row| row.raw_id.clone());
            }
            _ => {}
        }
        Act::Stay
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) if self.filter.chars().count() < FILTER_CHARS_MAX => {
                self.filter.push(letter);
            }
            _ => {}
        }
    }

    /// Moves the selection; an opened process changes with it.
    fn step(&mut self, to: impl FnOnce(usize) -> usize) {
        let visible = self.visible();
        let Some(last) = visible.len().checked_sub(1) else { return };
        let at = to(self.selected_at(&visible)).min(last);
        let id = visible[at].raw_id.clone();
        if self.opened.is_some() && self.opened.as_ref() != Some(&id) {
            self.opened = Some(id.clone());
            self.detail = None;
        }
        self.selected = Some(id);
    }
}
