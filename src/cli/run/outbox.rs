//! What still has to be told to the service. This module keeps it while the service is away, in order and in bounds.
//!
//! Whoever puts something in never waits. When lines come faster than they leave, the oldest give way and are
//! counted, and a row says at that place how many there were. Reports of a start and an end are never dropped; of
//! heartbeats one at most waits, since a second one would say nothing new.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::domain::time::Timestamp;

/// The most lines that wait: some minutes of a chatty command.
pub(super) const LINES_MAX: usize = 50_000;
/// The most bytes that waiting lines take, so that a small machine can watch a command without noticing.
pub(super) const BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a line costs beside its text.
const LINE_OVERHEAD_BYTES: usize = 64;
/// The most lines in one request: far below the 10,000 that the service takes.
pub(super) const PARCEL_LINES_MAX: usize = 1_000;
/// The most text in one request: even with every byte escaped in JSON it stays below 1 MiB, the service's bound.
pub(super) const PARCEL_BYTES_MAX: usize = 128 * 1024;
/// How long a line may wait for company, so that a slow trickle does not cost a request for each line.
const COMPANY: Duration = Duration::from_millis(200);

/// Where a sign of life is reported.
pub(super) const HEARTBEAT: &str = "/internal/heartbeat";

/// Where a line came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
    /// Ourselves: about lines that were dropped.
    Watcher,
}

/// A line that the command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) at: Timestamp,
    pub(super) stream: Stream,
    pub(super) text: Box<str>,
}

impl Line {
    fn bytes(&self) -> usize {
        self.text.len() + LINE_OVERHEAD_BYTES
    }
}

/// A report about the run, made once, so that every repetition is the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) path: &'static str,
    pub(super) key: String,
    pub(super) body: String,
}

/// What fits into one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parcel {
    Report(Report),
    Lines(Vec<Line>),
}

/// What the sender is to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Send(Parcel),
    /// Nothing is due yet.
    Wait,
    /// Everything has been taken, and nothing more will come; or nobody waits any more.
    Finish,
}

/// What never reached the service.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) lines: u64,
    pub(super) reports: u64,
}

#[derive(Default)]
struct State {
    /// Gives each entry its place among both kinds.
    count: u64,
    lines: VecDeque<(u64, Line)>,
    line_bytes: usize,
    /// When the oldest waiting line came in.
    lines_since: Option<Instant>,
    reports: VecDeque<(u64, Report)>,
    heartbeat_waits: bool,
    /// Lines dropped since the last row that told of it, and when the last of them was printed.
    dropped: Option<(u64, Timestamp)>,
    /// In the sender's hands.
    under_way: Left,
    /// Given up: refused by the service, or dropped.
    lost: Left,
    /// Why the last request that failed did, until one succeeds.
    failure: Option<String>,
    closed: bool,
    abandoned: bool,
}

/// The queue between those who watch the command and the one who tells the service.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

impl Outbox {
    /// Adds a line. The oldest ones give way when there is no room.
    pub(super) fn say(&self, line: Line) {
        let mut state = self.state.lock();
        while state.lines.len() >= LINES_MAX
            || (state.line_bytes + line.bytes() > BYTES_MAX && !state.lines.is_empty())
        {
            state.drop_oldest_line();
        }
        state.line_bytes += line.bytes();
        let place = state.place();
        state.lines.push_back((place, line));
        state.lines_since.get_or_insert_with(Instant::now);
        // The sender wakes for the first line, to wait for company, and when a request is full.
        if state.lines.len() == 1 || state.lines.len() == PARCEL_LINES_MAX {
            self.changed.notify_all();
        }
    }

    /// Adds a report.
    pub(super) fn report(&self, report: Report) {
        let mut state = self.state.lock();
        let place = state.place();
        state.reports.push_back((place, report));
        self.changed.notify_all();
    }

    /// Adds a heartbeat, unless one is waiting.
    pub(super) fn beat(&self, heartbeat: impl FnOnce() -> Report) {
        let waits = std::mem::replace(&mut self.state.lock().heartbeat_waits, true);
        if !waits {
            self.report(heartbeat());
        }
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Nobody waits for the sender any more.
    pub(super) fn abandon(&self) {
        self.state.lock().abandoned = true;
        self.changed.notify_all();
    }

    /// What is due next, in the order in which it came in. Waits for it up to `patience`.
    pub(super) fn next(&self, patience: Duration) -> Next {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        loop {
            let now = Instant::now();
            if state.abandoned {
                return Next::Finish;
            }
            if let Some(parcel) = state.due(now) {
                return Next::Send(parcel);
            }
            if state.closed && state.lines.is_empty() {
                return Next::Finish;
            }
            let company = state.lines_since.map(|since| since + COMPANY);
            let wake = company.map_or(until, |company| company.min(until));
            if self.changed.wait_until(&mut state, wake).timed_out() && Instant::now() >= until {
                return state.due(Instant::now()).map_or(Next::Wait, Next::Send);
            }
        }
    }

    /// Rests between two attempts, shorter once the command is over. Returns at once when nobody waits any more.
    pub(super) fn rest(&self, pause: Duration, pause_when_closed: Duration) {
        let start = Instant::now();
        let mut state = self.state.lock();
        while !state.abandoned {
            let pause = if state.closed { pause.min(pause_when_closed) } else { pause };
            if Instant::now() >= start + pause {
                return;
            }
            self.changed.wait_until(&mut state, start + pause);
        }
    }

    /// The parcel in the sender's hands has arrived, or was dropped.
    pub(super) fn settled(&self) {
        self.state.lock().under_way = Left::default();
    }

    /// Notes why a request failed, and forgets it when one has succeeded.
    pub(super) fn note_failure(&self, why: Option<&str>) {
        self.state.lock().failure = why.map(str::to_string);
    }

    /// Why the last request failed, if it did.
    pub(super) fn last_failure(&self) -> Option<String> {
        self.state.lock().failure.clone()
    }

    /// The service will never take these, which were in the sender's hands.
    pub(super) fn refused(&self, parcel: &Parcel) {
        let mut state = self.state.lock();
        let left = parcel.left();
        state.under_way.lines -= left.lines;
        state.under_way.reports -= left.reports;
        state.lost.lines += left.lines;
        state.lost.reports += left.reports;
    }

    /// Whether the command is over.
    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Whether anybody still waits for the sender.
    pub(super) fn is_abandoned(&self) -> bool {
        self.state.lock().abandoned
    }

    /// What has not reached the service so far.
    pub(super) fn left(&self) -> Left {
        let state = self.state.lock();
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        Left {
            lines: state.under_way.lines + state.lost.lines + count(state.lines.len()),
            reports: state.under_way.reports + state.lost.reports + count(state.reports.len()),
        }
    }
}

impl Parcel {
    fn left(&self) -> Left {
        match self {
            Self::Report(_) => Left { lines: 0, reports: 1 },
            Self::Lines(lines) => {
                let own = lines.iter().filter(|line| line.stream != Stream::Watcher).count();
                Left { lines: u64::try_from(own).unwrap_or(u64::MAX), reports: 0 }
            }
        }
    }
}

impl State {
    fn place(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    fn drop_oldest_line(&mut self) {
        let Some((_, line)) = self.lines.pop_front() else { return };
        self.line_bytes -= line.bytes();
        self.lost.lines += 1;
        let before = self.dropped.map_or(0, |(count, _)| count);
        self.dropped = Some((before + 1, line.at));
    }

    /// Takes what is due at `now`.
    fn due(&mut self, now: Instant) -> Option<Parcel> {
        let report_place = self.reports.front().map(|(place, _)| *place);
        let line_place = self.lines.front().map(|(place, _)| *place);
        let parcel = match (line_place, report_place) {
            (None, None) => return None,
            (Some(line), Some(report)) if line < report => self.take_lines(report),
            (_, Some(_)) => self.take_report()?,
            (Some(_), None) => {
                let full =
                    self.lines.len() >= PARCEL_LINES_MAX || self.line_bytes >= PARCEL_BYTES_MAX;
                let waited = self.lines_since.is_some_and(|since| now >= since + COMPANY);
                if !(full || waited || self.closed) {
                    return None;
                }
                self.take_lines(u64::MAX)
            }
        };
        self.under_way = parcel.left();
        Some(parcel)
    }

    fn take_report(&mut self) -> Option<Parcel> {
        let (_, report) = self.reports.pop_front()?;
        if report.path == HEARTBEAT {
            self.heartbeat_waits = false;
        }
        Some(Parcel::Report(report))
    }

    /// Takes the lines before `end`, as many as fit into one request.
    fn take_lines(&mut self, end: u64) -> Parcel {
        let mut lines = Vec::new();
        if let Some((count, at)) = self.dropped.take() {
            let text = format!("{count} lines are missing here: there was no room to keep them");
            lines.push(Line { at, stream: Stream::Watcher, text: text.into() });
        }
        let mut bytes = 0;
        while lines.len() < PARCEL_LINES_MAX {
            let fits = self.lines.front().is_some_and(|(place, line)| {
                *place < end && (bytes == 0 || bytes + line.bytes() <= PARCEL_BYTES_MAX)
            });
            if !fits {
                break;
            }
            let Some((_, line)) = self.lines.pop_front() else { break };
            bytes += line.bytes();
            self.line_bytes -= line.bytes();
            lines.push(line);
        }
        self.lines_since = (!self.lines.is_empty()).then(Instant::now);
        Parcel::Lines(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::super::report;
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn line(number: usize) -> Line {
        Line {
            at: Timestamp::from_micros(i64::try_from(number).unwrap()),
            stream: Stream::Stdout,
            text: format!("line {number}").into(),
        }
    }

    fn report(path: &'static str) -> Report {
        Report { path, key: path.to_string(), body: "{}".to_string() }
    }

    fn lines(next: Next) -> Vec<Line> {
        match next {
            Next::Send(Parcel::Lines(lines)) => lines,
            other => panic!("lines are due, not {other:?}"),
        }
    }

    #[test]
    fn everything_leaves_in_the_order_in_which_it_came() {
        let outbox = Outbox::default();
        outbox.report(report(report::START));
        outbox.say(line(1));
        outbox.say(line(2));
        outbox.report(report(HEARTBEAT));
        outbox.say(line(3));
        outbox.report(report(report::COMPLETE));
        outbox.close();
        assert_eq!(outbox.next(NOW), Next::Send(Parcel::Report(report(report::START))));
        assert_eq!(lines(outbox.next(NOW)), [line(1), line(2)]);
        assert_eq!(outbox.next(NOW), Next::Send(Parcel::Report(report(HEARTBEAT))));
        assert_eq!(lines(outbox.next(NOW)), [line(3)]);
        assert_eq!(outbox.next(NOW), Next::Send(Parcel::Report(report(report::COMPLETE))));
        outbox.settled();
        assert_eq!(outbox.next(NOW), Next::Finish);
        assert_eq!(outbox.left(), Left::default());
    }

    #[test]
    fn a_lone_line_waits_a_moment_for_company() {
        let outbox = Outbox::default();
        outbox.say(line(1));
        assert_eq!(outbox.next(NOW), Next::Wait);
        assert_eq!(lines(outbox.next(Duration::from_secs(60))), [line(1)]);
    }

    #[test]
    fn a_request_holds_a_bounded_number_of_lines_and_bytes() {
        let outbox = Outbox::default();
        for number in 0..PARCEL_LINES_MAX + 1 {
            outbox.say(line(number));
        }
        assert_eq!(lines(outbox.next(NOW)).len(), PARCEL_LINES_MAX);
        for _ in 0..40 {
            outbox.say(Line { text: "x".repeat(4000).into(), ..line(0) });
        }
        let bytes: usize = lines(outbox.next(NOW)).iter().map(Line::bytes).sum();
        assert!(bytes <= PARCEL_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn the_oldest_lines_give_way_and_a_row_says_how_many_but_no_report_is_lost() {
        let outbox = Outbox::default();
        outbox.report(report(report::START));
        for number in 0..LINES_MAX + 7 {
            outbox.say(line(number));
        }
        assert_eq!(outbox.left().lines, u64::try_from(LINES_MAX + 7).unwrap());
        assert_eq!(outbox.next(NOW), Next::Send(Parcel::Report(report(report::START))));
        let rows = lines(outbox.next(NOW));
        assert_eq!(rows[0].stream, Stream::Watcher);
        assert_eq!(&*rows[0].text, "7 lines are missing here: there was no room to keep them");
        assert_eq!(rows[1], line(7));
    }

    #[test]
    fn the_bytes_that_wait_are_bounded_too() {
        let outbox = Outbox::default();
        for _ in 0..BYTES_MAX / 4000 * 2 {
            outbox.say(Line { text: "x".repeat(4000).into(), ..line(0) });
        }
        assert!(outbox.state.lock().line_bytes <= BYTES_MAX);
    }

    #[test]
    fn one_heartbeat_at_most_waits() {
        let outbox = Outbox::default();
        for _ in 0..3 {
            outbox.beat(|| report(HEARTBEAT));
        }
        assert_eq!(outbox.next(NOW), Next::Send(Parcel::Report(report(HEARTBEAT))));
        assert_eq!(outbox.next(NOW), Next::Wait);
        outbox.beat(|| report(HEARTBEAT));
        assert_eq!(outbox.next(NOW), Next::Send(Parcel::Report(report(HEARTBEAT))));
    }

    #[test]
    fn an_abandoned_outbox_ends_the_sender_and_says_what_is_left() {
        let outbox = Outbox::default();
        outbox.report(report(report::START));
        outbox.say(line(1));
        assert!(matches!(outbox.next(NOW), Next::Send(Parcel::Report(_))));
        outbox.abandon();
        outbox.rest(Duration::from_secs(3600), Duration::from_secs(3600));
        assert_eq!(outbox.next(NOW), Next::Finish);
        assert_eq!(outbox.left(), Left { lines: 1, reports: 1 });
    }
}
