//! A process as the service tells it. This module reads it, and computes what a column shows.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::cli::words::escaped;
use crate::domain::time::Timestamp;

/// A process, as far as it is shown. Text is escaped when it comes in, so that nothing else can be drawn.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) id: String,
    /// As the service knows it, for questions.
    pub(super) raw_id: String,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) step: String,
    pub(super) percent: Option<f64>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) updated_at: Option<Timestamp>,
    pub(super) life_at: Option<Timestamp>,
    pub(super) due_at: Option<Timestamp>,
    pub(super) is_stale: bool,
    /// Percent in a minute.
    pub(super) rate: Option<f64>,
}

#[derive(Deserialize)]
struct Told {
    process_id: String,
    status: String,
    current_step: Option<String>,
    progress_percent: Option<f64>,
    started_at: Option<String>,
    last_update_at: String,
    estimated_completion: Option<String>,
    stale: bool,
    last_life_at: Option<String>,
    process_name: Option<String>,
    process_type: Option<String>,
}

impl Row {
    /// Reads one row of a listing. None: it is none.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let told = Told::deserialize(value).ok()?;
        let text = |text: Option<String>| escaped(&text.unwrap_or_default());
        let time = |text: Option<String>| text.as_deref().and_then(Timestamp::parse);
        let mut row = Self {
            id: escaped(&told.process_id),
            raw_id: told.process_id,
            name: text(told.process_name),
            kind: text(told.process_type),
            status: escaped(&told.status),
            step: text(told.current_step),
            percent: told.progress_percent,
            started_at: time(told.started_at),
            updated_at: Timestamp::parse(&told.last_update_at),
            life_at: time(told.last_life_at),
            due_at: time(told.estimated_completion),
            is_stale: told.stale,
            rate: None,
        };
        row.rate = row.rate_since_start();
        Some(row)
    }

    fn is_running(&self) -> bool {
        self.status == "RUNNING"
    }

    fn rate_since_start(&self) -> Option<f64> {
        let took = self.updated_at?.since(self.started_at?).as_secs_f64();
        let percent = self.percent?;
        (self.is_running() && took > 1.0).then(|| percent / took * 60.0)
    }

    /// The rate between an earlier look and this one. Where nothing has moved, the one of before holds.
    pub(super) fn note_rate(&mut self, earlier: &Self) {
        let is_same_run = earlier.started_at == self.started_at;
        let (Some(before), Some(after)) = (earlier.percent, self.percent) else { return };
        if !is_same_run || !self.is_running() {
            return;
        }
        let (Some(from), Some(to)) = (earlier.updated_at, self.updated_at) else { return };
        let took = to.since(from).as_secs_f64();
        if after > before && took > 0.0 {
            self.rate = Some((after - before) / took * 60.0);
        } else {
            self.rate = earlier.rate;
        }
    }

    /// How urgent it is to look at it: the smaller, the more.
    pub(super) fn urgency(&self) -> usize {
        const ORDER: [&str; 8] = [
            "EXPIRED",
            "FAILED",
            "RUNNING",
            "ACTIVE",
            "PAUSED",
            "REGISTERED",
            "COMPLETED",
            "ARCHIVED",
        ];
        if self.is_stale && self.is_running() {
            return 0;
        }
        ORDER.iter().position(|status| *status == self.status).map_or(ORDER.len(), |at| at + 1)
    }

    /// Whether it holds this text, in lower case, anywhere that is searched.
    pub(super) fn holds(&self, text: &str) -> bool {
        [&self.id, &self.name, &self.kind, &self.status, &self.step]
            .iter()
            .any(|field| field.to_lowercase().contains(text))
    }

    /// Time since the last sign of life.
    pub(super) fn age(&self, now: Timestamp) -> Option<Duration> {
        self.life_at.or(self.updated_at).map(|at| now.since(at))
    }

    /// The cells of the columns, in their order.
    pub(super) fn cells(&self, now: Timestamp) -> [String; 7] {
        let mark = if self.is_stale { "!" } else { "" };
        let due = match self.due_at {
            Some(due) if due < now => "late".to_string(),
            Some(due) => span(due.since(now)),
            None => "-".to_string(),
        };
        [
            self.id.clone(),
            self.status.clone(),
            self.step.clone(),
            self.percent.map_or_else(|| "-".to_string(), bar),
            due,
            self.age(now).map_or_else(|| "-".to_string(), |age| span(age) + mark),
            self.rate.map_or_else(|| "-".to_string(), |rate| format!("{rate:.1}")),
        ]
    }
}

/// Cells of a progress bar.
const BAR_CELLS: u8 = 8;

/// A bar and a number, in letters that every terminal has.
fn bar(percent: f64) -> String {
    let cell = 100.0 / f64::from(BAR_CELLS);
    let bar: String = (0..BAR_CELLS)
        .map(|at| if percent >= (f64::from(at) + 0.5) * cell { '#' } else { '.' })
        .collect();
    // Only what is complete is 100 %.
    format!("{bar}{:>4.0}%", if percent < 100.0 { percent.floor() } else { 100.0 })
}

/// A span of time in at most four letters, for a column.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        172_800..86_400_000 => format!("{}d", seconds / 86_400),
        _ => "old".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        assert_eq!(bar(0.0), "........   0%");
        assert_eq!(bar(50.0), "####....  50%");
        assert_eq!(bar(99.9), "########  99%");
        assert_eq!(bar(100.0), "######## 100%");
    }

    #[test]
    fn a_span_fits_into_its_column() {
        let text = |s| span(Duration::from_secs(s));
        assert_eq!([text(0), text(119), text(120), text(7199)], ["0s", "119s", "2m", "119m"]);
        assert_eq!([text(7200), text(172_800), text(86_400_000)], ["2h", "2d", "old"]);
    }
}
