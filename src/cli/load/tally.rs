//! What came of the load. This module counts answers and prints them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Latencies are told apart to about a thousandth of their value, up to this.
const LATENCY_MAX_US: u64 = 120_000_000;

/// Different kinds of wrong answers that are kept apart; further ones are counted together.
const UNEXPECTED_MAX: usize = 20;

/// Latencies in microseconds.
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("the bounds are in order"))
    }

    pub(super) fn add(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn clear(&mut self) {
        self.0.reset();
    }

    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that this share of requests stayed below, in milliseconds.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        to_ms(self.0.value_at_quantile(share))
    }

    fn json(&self) -> Value {
        json!({
            "count": self.count(),
            "p50": self.quantile_ms(0.5),
            "p95": self.quantile_ms(0.95),
            "p99": self.quantile_ms(0.99),
            "max": to_ms(self.0.max()),
        })
    }

    fn line(&self) -> String {
        format!(
            "p50 {:.3}  p95 {:.3}  p99 {:.3}  max {:.3} ms",
            self.quantile_ms(0.5),
            self.quantile_ms(0.95),
            self.quantile_ms(0.99),
            to_ms(self.0.max())
        )
    }
}

fn to_ms(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1000.0
}

/// Everything counted. Numbers of events, except where requests are named.
pub(super) struct Tally {
    /// Statuses that are rejections and no failures.
    accept: Vec<u16>,
    pub(super) sent: u64,
    pub(super) accepted: u64,
    pub(super) replayed: u64,
    pub(super) rejected: BTreeMap<u16, u64>,
    unexpected: BTreeMap<String, u64>,
    pub(super) requests: u64,
    pub(super) elapsed: Duration,
    /// How far the last request was behind the moment at which it was due.
    pub(super) behind: Duration,
    pub(super) latencies: Latencies,
    /// Until an event was in its stream.
    pub(super) freshness: Latencies,
    /// Until the progress of a process was in its status.
    pub(super) status_freshness: Latencies,
}

impl Tally {
    pub(super) fn new(accept: Vec<u16>) -> Self {
        Self {
            accept,
            sent: 0,
            accepted: 0,
            replayed: 0,
            rejected: BTreeMap::new(),
            unexpected: BTreeMap::new(),
            requests: 0,
            elapsed: Duration::ZERO,
            behind: Duration::ZERO,
            latencies: Latencies::new(),
            freshness: Latencies::new(),
            status_freshness: Latencies::new(),
        }
    }

    /// Counts `events` that were refused with `status`, as was to be expected or not.
    pub(super) fn reject(&mut self, status: u16, events: u64, expected: bool) {
        *self.rejected.entry(status).or_default() += events;
        if !expected && !self.accept.contains(&status) {
            self.surprise(format!("status {status}"));
        }
    }

    /// Counts an answer that should not be.
    pub(super) fn surprise(&mut self, what: String) {
        let known = self.unexpected.len() < UNEXPECTED_MAX || self.unexpected.contains_key(&what);
        *self.unexpected.entry(if known { what } else { "others".into() }).or_default() += 1;
    }

    pub(super) fn surprises(&self) -> u64 {
        self.unexpected.values().sum()
    }

    /// Whether the service was reached and every answer was as it should be.
    pub(super) fn is_clean(&self) -> bool {
        self.unexpected.is_empty() && self.latencies.count() > 0
    }

    fn per_second(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.accepted as f64 / seconds } else { 0.0 }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "sent": self.sent,
            "accepted": self.accepted,
            "replayed": self.replayed,
            "rejected": self.rejected,
            "unexpected": self.unexpected,
            "requests": self.requests,
            "elapsed_s": self.elapsed.as_secs_f64(),
            "behind_ms": self.behind.as_secs_f64() * 1000.0,
            "events_per_s": self.per_second(),
            "ack_ms": self.latencies.json(),
            "freshness_ms": (self.freshness.count() > 0).then(|| self.freshness.json()),
            "status_freshness_ms":
                (self.status_freshness.count() > 0).then(|| self.status_freshness.json()),
        })
    }

    pub(super) fn summary(&self) -> String {
        let mut text = format!(
            "{:.0} events/s accepted in {:.1} s\nsent {}  accepted {}  replayed {}  in {} requests",
            self.per_second(),
            self.elapsed.as_secs_f64(),
            self.sent,
            self.accepted,
            self.replayed,
            self.requests
        );
        let mut line = |line: String| {
            let _ = write!(text, "\n{line}");
        };
        for (status, events) in &self.rejected {
            line(format!("rejected with {status}: {events}"));
        }
        line(format!("answer:  {}", self.latencies.line()));
        for (what, found) in [("stream", &self.freshness), ("status", &self.status_freshness)] {
            if found.count() > 0 {
                let (figures, count) = (found.line(), found.count());
                line(format!(
                    "visible in the {what}: {figures} after the answer ({count} samples)"
                ));
            }
        }
        if self.behind > Duration::from_millis(100) {
            let behind = self.behind.as_secs_f64();
            line(format!("the rate was not reached: the last request was {behind:.1} s late"));
        }
        for (what, times) in &self.unexpected {
            line(format!("unexpected: {what} ({times} times)"));
        }
        if self.latencies.count() == 0 {
            line("nothing was answered".into());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_a_failure_unless_it_was_expected_or_accepted() {
        let mut tally = Tally::new(vec![503]);
        tally.latencies.add(Duration::from_millis(1));
        tally.reject(400, 1, true);
        tally.reject(503, 5, false);
        assert!(tally.is_clean());
        tally.reject(500, 1, false);
        assert!(!tally.is_clean());
        assert_eq!(tally.json()["rejected"], json!({"400": 1, "500": 1, "503": 5}));
    }

    #[test]
    fn latencies_are_exact_to_a_thousandth_and_never_lost() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|ms| latencies.add(Duration::from_millis(ms)));
        assert!((latencies.quantile_ms(0.5) - 500.0).abs() < 0.5);
        latencies.add(Duration::MAX);
        latencies.add(Duration::ZERO);
        assert_eq!(latencies.count(), 1002);
    }

    #[test]
    fn wrong_answers_are_told_apart_up_to_a_bound() {
        let mut tally = Tally::new(Vec::new());
        (0..1000).for_each(|kind| tally.surprise(format!("kind {kind}")));
        assert_eq!((tally.unexpected.len(), tally.surprises()), (UNEXPECTED_MAX + 1, 1000));
    }
}
