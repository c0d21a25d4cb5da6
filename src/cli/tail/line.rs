//! How a row and a status look on a terminal. This module writes their lines; nothing that came from outside can
//! move the cursor, change a colour or begin a line of its own.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cli::words::escaped;

/// The longest time, to the microsecond; a shorter one ends in zeros that are not written. So all columns stand still.
const TIME_WIDTH: usize = "2026-01-28T10:30:00.000000Z".len();

/// A log row, as far as it is shown.
#[derive(Deserialize)]
pub(super) struct Row<'a> {
    logged_at: String,
    level: String,
    component: Option<String>,
    message: String,
    #[serde(borrow)]
    details: Option<&'a RawValue>,
    stack_trace: Option<String>,
}

impl Row<'_> {
    /// The row on a line, and each line of its stack trace below it.
    pub(super) fn lines(&self) -> String {
        let mut text =
            format!("{:<TIME_WIDTH$} {:<5} ", escaped(&self.logged_at), escaped(&self.level));
        if let Some(component) = &self.component {
            text.push_str(&escaped(component));
            text.push_str(": ");
        }
        text.push_str(&escaped(&self.message));
        if let Some(details) = self.details {
            text.push(' ');
            text.push_str(&escaped(details.get()));
        }
        text.push('\n');
        for line in self.stack_trace.iter().flat_map(|trace| trace.lines()) {
            // A tab at the beginning of a line is how stack traces are written.
            let _ = writeln!(text, "    {}", escaped(&line.replace('\t', "  ")));
        }
        text
    }
}

/// A status, as far as it is shown.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Status {
    status: String,
    current_step: Option<String>,
    progress_percent: Option<f64>,
    last_update_at: String,
    estimated_completion: Option<String>,
    stale: bool,
    reason: Option<String>,
    run_id: Option<String>,
    run_no: u64,
}

impl Status {
    /// Whether it stays as it is until a new run begins.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "COMPLETED" | "FAILED" | "ARCHIVED")
    }

    /// Whether there is something to tell: a mere sign of life is not.
    pub(super) fn differs(&self, later: &Self) -> bool {
        let quiet = |status: &Self| Self {
            last_update_at: String::new(),
            estimated_completion: None,
            ..status.clone()
        };
        quiet(self) != quiet(later)
    }

    /// The status on a line that no row looks like.
    pub(super) fn line(&self) -> String {
        let mut text = format!(
            "{:<TIME_WIDTH$} ----- {} (run {})",
            escaped(&self.last_update_at),
            escaped(&self.status),
            self.run_no
        );
        if let Some(step) = &self.current_step {
            let _ = write!(text, ", step {}", escaped(step));
        }
        if let Some(percent) = self.progress_percent {
            let _ = write!(text, ", {percent:.0} %");
        }
        if let Some(time) = &self.estimated_completion {
            let _ = write!(text, ", done about {}", escaped(time));
        }
        if self.stale {
            text.push_str(", no sign of life for longer than it said");
        }
        if let Some(reason) = &self.reason {
            let _ = write!(text, ": {}", escaped(reason));
        }
        text
    }
}

/// JSON text with the same meaning and nothing in it that a terminal acts on. Such characters stand only within
/// strings, where an escape means the same.
pub(super) fn escaped_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        let mut encoded = [0; 4];
        if escaped(letter.encode_utf8(&mut encoded)).len() == letter.len_utf8() {
            text.push(letter);
        } else {
            // All of them lie in the first plane, so one unit is the whole character.
            let _ = write!(text, "\\u{:04x}", u32::from(letter));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line_whatever_it_holds() {
        let row = r#"{"logged_at":"2026-01-28T10:30:00.5Z","level":"WARN","component":"st\u001bdout",
            "message":"a\nb\u001b[31m\u202e","details":{"k":"\u009b1m"},"stack_trace":"at x\n\tat y\u0007"}"#;
        let row: Row<'_> = serde_json::from_str(row).unwrap();
        assert_eq!(
            row.lines(),
            "2026-01-28T10:30:00.5Z      WARN  st\\u{1b}dout: a\\nb\\u{1b}[31m\\u{202e} {\"k\":\"\\u009b1m\"}\n    \
             at x\n      at y\\u{7}\n"
        );
    }

    fn status(percent: f64, at: &str) -> Status {
        let text = format!(
            r#"{{"status":"RUNNING","current_step":"LO\u001bAD","progress_percent":{percent},"last_update_at":"{at}",
            "estimated_completion":null,"stale":false,"reason":null,"run_id":"r","run_no":3}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_status_is_told_when_it_says_something_new() {
        assert!(!status(40.0, "10:00").differs(&status(40.0, "10:01")), "a heartbeat");
        assert!(status(40.0, "10:00").differs(&status(41.0, "10:00")));
        assert_eq!(
            status(40.2, "10:00").line(),
            "10:00                       ----- RUNNING (run 3), step LO\\u{1b}AD, 40 %"
        );
        assert!(!status(40.0, "10:00").is_over());
        assert!(Status { status: "FAILED".into(), ..status(40.0, "10:00") }.is_over());
        assert!(!Status { status: "EXPIRED".into(), ..status(40.0, "10:00") }.is_over());
    }

    #[test]
    fn json_keeps_its_meaning_and_loses_what_a_terminal_acts_on() {
        let json = "{\"a\":\"x\u{9b}31m\u{202e}\u{7f}é😀\",\"b\":\"\\u001b\"}";
        let safe = escaped_json(json);
        assert_eq!(safe, "{\"a\":\"x\\u009b31m\\u202e\\u007fé😀\",\"b\":\"\\u001b\"}");
        let meaning = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(meaning(&safe), meaning(json));
    }
}
