//! What the service is told about a run. This module writes the bodies of those requests.
//!
//! The ids are made once, when the thing happens, so that a repetition is the same request and has no second
//! effect. The process id travels in the body, since a name may hold more than a header field can.

use serde_json::{Value, json};
use uuid::Uuid;

use super::child::Ending;
use super::outbox::{HEARTBEAT, Line, Report, Stream};
use crate::domain::ids::ProcessId;
use crate::domain::log_row::Level;
use crate::domain::time::Timestamp;

pub(super) const START: &str = "/internal/start";
pub(super) const COMPLETE: &str = "/internal/complete";
pub(super) const ERROR: &str = "/internal/error";
pub(super) const LOG: &str = "/internal/log";

/// The run that is reported: every report but the first names it, so that time decides nothing.
pub(super) struct Run {
    process: ProcessId,
    id: String,
}

/// What is known when the command starts.
pub(super) struct Start<'a> {
    pub(super) process_type: &'a str,
    /// The program without its arguments, which may hold secrets.
    pub(super) program: &'a str,
    pub(super) host: &'a str,
    /// None: it could not be started.
    pub(super) pid: Option<u32>,
    pub(super) heartbeat_s: u64,
}

impl Run {
    pub(super) fn new(process: ProcessId) -> Self {
        Self { process, id: Uuid::now_v7().to_string() }
    }

    /// The id of the start is the id of the run.
    pub(super) fn start(&self, at: Timestamp, start: &Start<'_>) -> Report {
        let fields = json!({
            "process_name": self.process,
            "process_type": start.process_type,
            "heartbeat_interval_s": start.heartbeat_s,
            "metadata": {"command": start.program, "host": start.host, "pid": start.pid},
        });
        self.report(START, &self.id, at, fields)
    }

    pub(super) fn heartbeat(&self, at: Timestamp) -> Report {
        self.report(HEARTBEAT, &Uuid::now_v7().to_string(), at, json!({"run_id": self.id}))
    }

    /// `stderr` is the last that the command said there.
    pub(super) fn end(&self, at: Timestamp, ending: &Ending, stderr: &str) -> Report {
        let id = Uuid::now_v7().to_string();
        if ending.code == 0 {
            let fields = json!({"run_id": self.id, "result": {"exit_code": 0}});
            return self.report(COMPLETE, &id, at, fields);
        }
        let message = match (&ending.words, stderr) {
            (Some(words), "") => words.clone(),
            (Some(words), stderr) => format!("{words}: {stderr}"),
            (None, "") => format!("exit code {}", ending.code),
            (None, stderr) => stderr.to_string(),
        };
        let fields = json!({
            "run_id": self.id,
            "error_code": ending.code.to_string(),
            "error_message": message,
        });
        self.report(ERROR, &id, at, fields)
    }

    /// One request for all of `lines`.
    pub(super) fn log(&self, lines: &[Line]) -> Report {
        let rows: Vec<Value> = lines.iter().map(|line| self.row(line)).collect();
        let body = Value::Array(rows).to_string();
        Report { path: LOG, key: Uuid::now_v7().to_string(), body }
    }

    fn row(&self, line: &Line) -> Value {
        let (level, component) = match line.stream {
            Stream::Stdout => (Level::Info, "stdout"),
            Stream::Stderr => (Level::Warn, "stderr"),
            Stream::Watcher => (Level::Warn, "sentinel run"),
        };
        json!({
            "process_id": self.process,
            "run_id": self.id,
            "level": level,
            "message": line.text,
            "component": component,
            "logged_at": line.at.to_string(),
        })
    }

    fn report(&self, path: &'static str, id: &str, at: Timestamp, mut fields: Value) -> Report {
        fields["process_id"] = json!(self.process);
        fields["event_id"] = json!(id);
        fields["occurred_at"] = json!(at.to_string());
        Report { path, key: id.to_string(), body: fields.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run { process: ProcessId::parse("nightly").unwrap(), id: "run-1".to_string() }
    }

    fn body(report: &Report) -> Value {
        serde_json::from_str(&report.body).unwrap()
    }

    #[test]
    fn the_id_of_the_start_is_the_id_of_the_run() {
        let at = Timestamp::parse("2026-01-28T10:30:00Z").unwrap();
        let start = Start {
            process_type: "command",
            program: "backup.sh",
            host: "db1",
            pid: Some(42),
            heartbeat_s: 30,
        };
        let report = run().start(at, &start);
        assert_eq!((report.path, report.key.as_str()), (START, "run-1"));
        assert_eq!(
            body(&report),
            json!({
                "process_id": "nightly", "event_id": "run-1", "occurred_at": "2026-01-28T10:30:00Z",
                "process_name": "nightly", "process_type": "command", "heartbeat_interval_s": 30,
                "metadata": {"command": "backup.sh", "host": "db1", "pid": 42},
            })
        );
        let heartbeat = body(&run().heartbeat(at));
        assert_eq!(heartbeat["run_id"], "run-1");
        assert_ne!(heartbeat["event_id"], "run-1");
    }

    #[test]
    fn an_end_is_complete_or_an_error_with_the_last_words_of_the_command() {
        let at = Timestamp::from_micros(0);
        let end = |code, words: Option<&str>, stderr| {
            run().end(at, &Ending { code, words: words.map(str::to_string) }, stderr)
        };
        let fine = end(0, None, "a warning");
        assert_eq!((fine.path, body(&fine)["result"]["exit_code"].as_u64()), (COMPLETE, Some(0)));
        let bad = end(3, None, "disk full");
        assert_eq!((bad.path, &body(&bad)["error_code"]), (ERROR, &json!("3")));
        assert_eq!(body(&bad)["error_message"], "disk full");
        assert_eq!(body(&end(3, None, ""))["error_message"], "exit code 3");
        let killed = end(143, Some("killed by SIGTERM"), "stopping");
        assert_eq!(body(&killed)["error_message"], "killed by SIGTERM: stopping");
    }

    #[test]
    fn a_row_says_where_and_when_it_was_printed() {
        let line = Line {
            at: Timestamp::parse("2026-01-28T10:30:00.5Z").unwrap(),
            stream: Stream::Stderr,
            text: "careful".into(),
        };
        assert_eq!(
            body(&run().log(&[line])),
            json!([{
                "process_id": "nightly", "run_id": "run-1", "level": "WARN", "message": "careful",
                "component": "stderr", "logged_at": "2026-01-28T10:30:00.5Z",
            }])
        );
    }
}
