//! Tells the service what the outbox holds. This module is the one place of `sentinel run` that waits for it.
//!
//! One request is under way at a time, so that order is kept, and it is repeated until the service has answered:
//! each carries the same ids and key every time, so a repetition has no second effect. What the service will never
//! take is dropped and told. Nothing here can hold up the command.

use std::collections::VecDeque;
use std::time::Duration;

use super::outbox::{Line, Next, Outbox, Parcel, Report};
use super::report::Run;
use crate::cli::backoff::{jittered, rest_after};

/// How long one request may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long one pass waits for something to send.
pub(super) const LULL: Duration = Duration::from_secs(5);
/// The longest rest once the command is over and somebody waits for us.
pub(super) const REST_AT_END: Duration = Duration::from_millis(500);
/// The longest time that a service may ask us to stay away.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// After so many failures in a row it is worth a line on stderr: not for a service that restarts.
const FAILURES_BEFORE_A_WORD: u32 = 5;

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The service has it, durably.
    Accepted,
    /// Not now: the service is away, busy, or does not know us yet.
    Later { why: String, after: Option<Duration> },
    /// Never: repeating it would not help.
    Refused { why: String },
    /// Never in one piece.
    TooLarge { why: String },
}

/// The way to the service.
pub(super) trait Transport {
    /// Sends one request and waits for its answer, up to `patience`.
    fn post(&mut self, report: &Report, patience: Duration) -> Outcome;
}

/// What a pass came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// Go on at once.
    Next,
    /// Go on after a rest.
    Rest(Duration),
    /// There is nothing more to do.
    Finished,
}

/// Lines or a report, as a request that can be repeated.
struct Attempt {
    parcel: Parcel,
    request: Report,
}

/// Sends what the outbox holds, one request at a time.
pub(super) struct Sender<'a, T> {
    outbox: &'a Outbox,
    transport: T,
    run: &'a Run,
    warn: &'a dyn Fn(&str),
    /// The request under way first. More than one only where lines had to be split.
    attempts: VecDeque<Attempt>,
    failures: u32,
    refused_before: bool,
}

impl<'a, T: Transport> Sender<'a, T> {
    pub(super) fn new(
        outbox: &'a Outbox,
        transport: T,
        run: &'a Run,
        warn: &'a dyn Fn(&str),
    ) -> Self {
        let attempts = VecDeque::new();
        Self { outbox, transport, run, warn, attempts, failures: 0, refused_before: false }
    }

    /// Sends until everything is told or nobody waits any more.
    pub(super) fn work(mut self) {
        loop {
            match self.pass(LULL) {
                Pass::Next => {}
                Pass::Rest(rest) => self.outbox.rest(rest, REST_AT_END),
                Pass::Finished => return,
            }
        }
    }

    /// Makes one request, if there is something to send within `lull`.
    pub(super) fn pass(&mut self, lull: Duration) -> Pass {
        if self.outbox.is_abandoned() {
            return Pass::Finished;
        }
        if self.attempts.is_empty() {
            match self.outbox.next(lull) {
                Next::Wait => return Pass::Next,
                Next::Finish => return Pass::Finished,
                Next::Send(parcel) => self.attempts.push_back(self.attempt(parcel)),
            }
        }
        let Some(attempt) = self.attempts.front() else { return Pass::Next };
        match self.transport.post(&attempt.request, PATIENCE) {
            Outcome::Accepted => {
                self.failures = 0;
                self.outbox.note_failure(None);
                self.attempts.pop_front();
                if self.attempts.is_empty() {
                    self.outbox.settled();
                }
                Pass::Next
            }
            Outcome::Later { why, after } => Pass::Rest(self.put_off(&why, after)),
            Outcome::TooLarge { why } => {
                self.split(&why);
                Pass::Next
            }
            Outcome::Refused { why } => {
                self.refuse(&why);
                Pass::Next
            }
        }
    }

    fn attempt(&self, parcel: Parcel) -> Attempt {
        let request = match &parcel {
            Parcel::Report(report) => report.clone(),
            Parcel::Lines(lines) => self.run.log(lines),
        };
        Attempt { parcel, request }
    }

    fn put_off(&mut self, why: &str, after: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.outbox.note_failure(Some(why));
        if self.failures == FAILURES_BEFORE_A_WORD && !self.outbox.is_closed() {
            (self.warn)(&format!(
                "the service takes no reports: {why}; they are kept, and the command goes on"
            ));
        }
        let rest = jittered(rest_after(self.failures));
        rest.max(after.unwrap_or_default().min(RETRY_AFTER_MAX))
    }

    /// Makes two requests of one, so that a service with a lower bound than usual takes them after all.
    fn split(&mut self, why: &str) {
        let halves = match self.attempts.front().map(|attempt| &attempt.parcel) {
            Some(Parcel::Lines(lines)) if lines.len() > 1 => {
                let (head, tail): (&[Line], &[Line]) = lines.split_at(lines.len() / 2);
                [
                    self.attempt(Parcel::Lines(tail.to_vec())),
                    self.attempt(Parcel::Lines(head.to_vec())),
                ]
            }
            _ => return self.refuse(why),
        };
        self.attempts.pop_front();
        for half in halves {
            self.attempts.push_front(half);
        }
    }

    fn refuse(&mut self, why: &str) {
        if let Some(attempt) = self.attempts.pop_front() {
            self.outbox.refused(&attempt.parcel);
            // Once: a command that prints a thousand lines must not make a thousand more.
            if !std::mem::replace(&mut self.refused_before, true) {
                let path = attempt.request.path;
                (self.warn)(&format!("the service refuses a request to {path}: {why}"));
            }
        }
        if self.attempts.is_empty() {
            self.outbox.settled();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::outbox::{Left, PARCEL_LINES_MAX, Stream};
    use super::super::report;
    use super::*;
    use crate::domain::ids::ProcessId;
    use crate::domain::time::Timestamp;

    /// A service that answers as it was told to, then accepts; it keeps what was sent to it.
    #[derive(Default)]
    struct Fake {
        answers: RefCell<VecDeque<Outcome>>,
        seen: RefCell<Vec<Report>>,
    }

    impl Transport for &Fake {
        fn post(&mut self, report: &Report, _: Duration) -> Outcome {
            self.seen.borrow_mut().push(report.clone());
            self.answers.borrow_mut().pop_front().unwrap_or(Outcome::Accepted)
        }
    }

    struct Scene {
        outbox: Outbox,
        run: Run,
        fake: Fake,
        words: RefCell<Vec<String>>,
    }

    impl Scene {
        fn new(answers: Vec<Outcome>) -> Self {
            Self {
                outbox: Outbox::default(),
                run: Run::new(ProcessId::parse("nightly").unwrap()),
                fake: Fake { answers: RefCell::new(answers.into()), ..Fake::default() },
                words: RefCell::default(),
            }
        }

        fn say(&self, text: &str) {
            let at = Timestamp::from_micros(0);
            self.outbox.say(Line { at, stream: Stream::Stdout, text: text.into() });
        }

        /// Passes until there is nothing left, and how often there was a rest.
        fn play(&self) -> usize {
            self.outbox.close();
            let warn = |word: &str| self.words.borrow_mut().push(word.to_string());
            let mut sender = Sender::new(&self.outbox, &self.fake, &self.run, &warn);
            let mut rests = 0;
            loop {
                match sender.pass(Duration::ZERO) {
                    Pass::Next => {}
                    Pass::Rest(_) => rests += 1,
                    Pass::Finished => return rests,
                }
            }
        }

        fn messages(&self) -> Vec<String> {
            let seen = self.fake.seen.borrow();
            let rows = seen.iter().filter(|report| report.path == report::LOG);
            rows.flat_map(|report| {
                let rows: Vec<serde_json::Value> = serde_json::from_str(&report.body).unwrap();
                rows.into_iter().map(|row| row["message"].as_str().unwrap().to_string())
            })
            .collect()
        }
    }

    fn away() -> Outcome {
        Outcome::Later { why: "connection refused".to_string(), after: None }
    }

    #[test]
    fn a_request_is_repeated_unchanged_until_it_is_taken() {
        let scene = Scene::new(vec![away(), away(), Outcome::Accepted, away()]);
        scene.say("one");
        scene.outbox.report(scene.run.heartbeat(Timestamp::from_micros(0)));
        assert_eq!(scene.play(), 3);
        let seen = scene.fake.seen.borrow();
        assert_eq!(seen.len(), 5);
        assert!(seen[0] == seen[1] && seen[1] == seen[2], "the same key and body");
        assert_eq!(seen[3], seen[4]);
        assert_eq!(scene.outbox.left(), Left::default());
    }

    #[test]
    fn lines_that_are_too_large_for_one_request_are_split_in_order() {
        let large = || Outcome::TooLarge { why: "413".to_string() };
        let scene = Scene::new(vec![large(), large()]);
        for text in ["one", "two", "three", "four"] {
            scene.say(text);
        }
        scene.play();
        let kept = scene.messages().split_off(6);
        assert_eq!(kept, ["one", "two", "three", "four"]);
        assert_eq!(scene.outbox.left(), Left::default());
    }

    #[test]
    fn what_the_service_will_never_take_is_dropped_counted_and_told_once() {
        let no = || Outcome::Refused { why: "400 bad".to_string() };
        let scene = Scene::new(vec![no(), no()]);
        for number in 0..PARCEL_LINES_MAX + 1 {
            scene.say(&number.to_string());
        }
        scene.play();
        assert_eq!(
            *scene.words.borrow(),
            ["the service refuses a request to /internal/log: 400 bad"]
        );
        let lines = u64::try_from(PARCEL_LINES_MAX + 1).unwrap();
        assert_eq!(scene.outbox.left(), Left { lines, reports: 0 });
    }

    #[test]
    fn a_service_that_stays_away_is_told_once_while_the_command_runs() {
        let scene = Scene::new(vec![away(); 20]);
        scene.outbox.report(scene.run.heartbeat(Timestamp::from_micros(0)));
        let warn = |word: &str| scene.words.borrow_mut().push(word.to_string());
        let mut sender = Sender::new(&scene.outbox, &scene.fake, &scene.run, &warn);
        for _ in 0..20 {
            assert!(matches!(sender.pass(Duration::ZERO), Pass::Rest(_)));
        }
        assert_eq!(scene.words.borrow().len(), 1);
        assert!(scene.words.borrow()[0].contains("connection refused"));
        assert_eq!(scene.outbox.left(), Left { lines: 0, reports: 1 });
    }

    #[test]
    fn a_service_may_ask_for_a_longer_rest() {
        let ask = Outcome::Later { why: "503".into(), after: Some(Duration::from_secs(7)) };
        let scene = Scene::new(vec![ask]);
        scene.say("one");
        scene.outbox.close();
        let mut sender = Sender::new(&scene.outbox, &scene.fake, &scene.run, &|_| ());
        assert_eq!(sender.pass(Duration::ZERO), Pass::Rest(Duration::from_secs(7)));
    }
}
