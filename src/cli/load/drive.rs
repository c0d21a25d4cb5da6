//! Drives all connections from one thread. This module decides when a request is due and on which connection it goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use mio::{Events, Poll, Token};

use super::Server;
use super::alarm::Alarm;
use super::freshness::Sampler;
use super::link::{Flight, Link};
use super::tally::{Latencies, Tally};
use super::workload::Workload;
use crate::cli::words::RUNNING_HINT;

/// How often progress is shown, and connections that broke are opened again.
const TICK: Duration = Duration::from_secs(1);

/// How long answers may take after the last request.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(30);

/// Bytes read at once: what a socket usually holds.
const SCRATCH_BYTES: usize = 64 * 1024;

const ALARM: Token = Token(usize::MAX);

/// When requests are due, and for how long.
pub(super) struct Pace {
    /// The time from one request to the next. None: as fast as answers come.
    pub(super) interval: Option<Duration>,
    pub(super) duration: Duration,
    pub(super) requests: Option<u64>,
    /// Whether progress is shown.
    pub(super) loud: bool,
}

pub(super) struct Driver {
    server: Server,
    poll: Poll,
    alarm: Alarm,
    /// None: it broke and could not be opened again yet.
    links: Vec<Option<Link>>,
    /// How many connections are open: each of them is free or has a request in flight.
    open: usize,
    /// Free connections. The one free for longest is used next, so that all are used.
    free: VecDeque<usize>,
    scratch: Vec<u8>,
}

impl Driver {
    /// Opens all connections.
    pub(super) fn connect(server: Server, connections: usize) -> anyhow::Result<Self> {
        let poll = Poll::new().context("make a poll")?;
        let alarm = Alarm::new(poll.registry(), ALARM).context("make a timer")?;
        let open = |index| {
            let link = Link::connect(&server, poll.registry(), Token(index));
            link.map(Some).map_err(|error| {
                let address = server.address;
                anyhow!("cannot reach the service at {address}: {error:#}; {RUNNING_HINT}")
            })
        };
        let links = (0..connections).map(open).collect::<anyhow::Result<Vec<_>>>()?;
        let scratch = vec![0; SCRATCH_BYTES];
        let free = (0..connections).collect();
        Ok(Self { server, poll, alarm, links, open: connections, free, scratch })
    }

    /// Sends what `workload` gives at the `pace`, until it is over and everything is answered.
    pub(super) fn drive(
        &mut self,
        workload: &mut dyn Workload,
        pace: &Pace,
        tally: &mut Tally,
        sampler: Option<&Sampler>,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let until = began + pace.duration;
        let mut requests_left = pace.requests.unwrap_or(u64::MAX);
        let mut due = began;
        let mut tick = began + TICK;
        let mut progress = Progress::new(pace.loud);
        let mut events = Events::with_capacity(1024);
        let mut last_answer = began;
        loop {
            let now = Instant::now();
            if now >= until {
                requests_left = 0;
            }
            while requests_left > 0
                && pace.interval.is_none_or(|_| due <= now)
                && !self.free.is_empty()
            {
                let planned = if pace.interval.is_some() { due } else { Instant::now() };
                if !self.send(workload, planned, tally) {
                    requests_left = 0;
                    break;
                }
                requests_left -= 1;
                if let Some(interval) = pace.interval {
                    tally.behind = now.saturating_duration_since(due);
                    due += interval;
                }
            }
            let in_flight = self.in_flight();
            if requests_left == 0 && (in_flight == 0 || now >= until + LAST_ANSWERS_MAX) {
                for _ in 0..in_flight {
                    tally.surprise("no answer came".into());
                }
                break;
            }
            if now >= tick {
                progress.show(began.elapsed(), tally, in_flight);
                self.reopen(tally);
                tick += TICK;
            }
            if pace.interval.is_some() && requests_left > 0 && !self.free.is_empty() {
                self.alarm
                    .set(due.saturating_duration_since(Instant::now()))
                    .context("set a timer")?;
            }
            let pause = if requests_left > 0 { tick.min(until) } else { tick };
            let pause = pause.saturating_duration_since(Instant::now());
            match self.poll.poll(&mut events, Some(pause)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                result => result.context("poll")?,
            }
            for event in events.iter().filter(|event| event.token() != ALARM) {
                let Token(index) = event.token();
                self.turn(
                    index,
                    workload,
                    |latency, sample| {
                        last_answer = Instant::now();
                        progress.window.add(latency);
                        if let (Some(sampler), Some(sample)) = (sampler, sample) {
                            sampler.offer(sample);
                        }
                    },
                    tally,
                );
            }
        }
        tally.elapsed = last_answer.saturating_duration_since(began);
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.open - self.free.len()
    }

    /// Sends the next request on a free connection. False: there is none left.
    fn send(&mut self, workload: &mut dyn Workload, due: Instant, tally: &mut Tally) -> bool {
        let Some(index) = self.free.pop_front() else { return true };
        let Some(link) = &mut self.links[index] else { return true };
        let Some(ask) = workload.next(link.request()) else {
            self.free.push_front(index);
            return false;
        };
        tally.sent += ask.count();
        tally.requests += 1;
        link.flight = Some(Flight { ask, due });
        if let Err(error) = link.write() {
            self.replace(index, &error.to_string(), tally);
        }
        true
    }

    /// Moves one connection on.
    fn turn(
        &mut self,
        index: usize,
        workload: &mut dyn Workload,
        mut answered: impl FnMut(Duration, Option<super::workload::Sample>),
        tally: &mut Tally,
    ) {
        let Some(link) = &mut self.links[index] else { return };
        let result = link.write().and_then(|()| {
            link.read(&mut self.scratch, |flight, reply| {
                let latency = flight.due.elapsed();
                tally.latencies.add(latency);
                let sample = workload.settle(flight.ask, reply, tally);
                answered(latency, sample);
            })
        });
        match result {
            Ok(true) => self.free.push_back(index),
            Ok(false) => {}
            Err(error) => self.replace(index, &error.to_string(), tally),
        }
    }

    /// Opens a connection anew. One that broke before its answer came is a failure; a service may close an idle one.
    fn replace(&mut self, index: usize, why: &str, tally: &mut Tally) {
        if let Some(mut link) = self.links[index].take() {
            link.close(self.poll.registry());
            self.open -= 1;
            if link.flight.is_some() {
                tally.surprise(format!("{why} before an answer came"));
            }
        }
        self.free.retain(|free| *free != index);
        self.connect_again(index, tally);
    }

    fn connect_again(&mut self, index: usize, tally: &mut Tally) {
        match Link::connect(&self.server, self.poll.registry(), Token(index)) {
            Ok(link) => {
                self.links[index] = Some(link);
                self.open += 1;
                self.free.push_back(index);
            }
            Err(error) => tally.surprise(format!("no connection: {}", error.kind())),
        }
    }

    /// Tries the connections again that could not be opened.
    fn reopen(&mut self, tally: &mut Tally) {
        for index in 0..self.links.len() {
            if self.links[index].is_none() {
                self.connect_again(index, tally);
            }
        }
    }
}

/// One line a second.
struct Progress {
    loud: bool,
    window: Latencies,
    accepted: u64,
    shown_at: Duration,
}

impl Progress {
    fn new(loud: bool) -> Self {
        Self { loud, window: Latencies::new(), accepted: 0, shown_at: Duration::ZERO }
    }

    fn show(&mut self, elapsed: Duration, tally: &Tally, in_flight: usize) {
        if self.loud {
            let seconds = elapsed.saturating_sub(self.shown_at).as_secs_f64().max(0.001);
            let done = tally.accepted + tally.replayed;
            let rate = (done - self.accepted) as f64 / seconds;
            let (p50, p99) = (self.window.quantile_ms(0.5), self.window.quantile_ms(0.99));
            let rejected: u64 = tally.rejected.values().sum();
            let line = format!(
                "{:>5.0}s  {rate:>9.0}/s  p50 {p50:.2} ms  p99 {p99:.2} ms  in flight {in_flight}  rejected {rejected}  errors {}\n",
                elapsed.as_secs_f64(),
                tally.surprises()
            );
            // Progress that nobody can read is no reason to stop.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            self.accepted = done;
        }
        self.shown_at = elapsed;
        self.window.clear();
    }
}
