//! How soon an acknowledged event is visible. This module asks for sampled events until they are there: for the
//! progress of a process in its status, for every other event in its stream.
//!
//! It has a thread and a connection of its own, so that its questions neither wait for the load nor hold it up, and
//! looks for one event at a time, so that it is not itself a load.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use crossbeam::channel::{self, Receiver, Sender};
use memchr::memmem;

use super::link::CONNECT_MAX;
use super::tally::Tally;
use super::wire::Wire;
use super::workload::Sample;
use super::{Server, reply};
use crate::component::{Component, Stop};
use crate::domain::time::Timestamp;

/// The pause between two samples.
const BETWEEN: Duration = Duration::from_millis(25);

/// The pause between two questions for one event: the error of a measurement.
const AGAIN: Duration = Duration::from_micros(200);

/// An event that is not visible by then never will be.
const VISIBLE_MAX: Duration = Duration::from_secs(30);

/// Results kept until the end: more than samples taken in an hour.
const RESULTS_MAX: usize = 200_000;

/// An event that became visible.
struct Found {
    in_status: bool,
    took: Duration,
}

/// Looks for sampled events.
pub(super) struct Sampler {
    samples: Sender<Sample>,
    results: Receiver<Found>,
    component: Component,
}

impl Sampler {
    pub(super) fn start(server: Server) -> anyhow::Result<Self> {
        // Without a place to wait in: a sample is taken only when the last one has been found.
        let (samples, wanted) = channel::bounded(0);
        let (found, results) = channel::bounded(RESULTS_MAX);
        let (ended, _) = channel::unbounded();
        let component = Component::start("freshness", ended, move |stop| {
            watch(&server, &wanted, &found, &stop)
        })
        .context("start the sampler")?;
        Ok(Self { samples, results, component })
    }

    /// Has `sample` looked for, if nothing else is.
    pub(super) fn offer(&self, sample: Sample) {
        let _ = self.samples.try_send(sample);
    }

    /// Waits for the last sample and adds what was found.
    pub(super) fn finish(self, tally: &mut Tally) {
        let Self { samples, results, mut component } = self;
        drop(samples);
        // Past the deadline of the last sample and of its last question.
        let over = component.join_by(Instant::now() + VISIBLE_MAX + CONNECT_MAX * 2);
        for found in results.try_iter() {
            let latencies =
                if found.in_status { &mut tally.status_freshness } else { &mut tally.freshness };
            latencies.add(found.took);
        }
        match over {
            crate::component::End::Clean => {}
            crate::component::End::Failed(error) => tally.surprise(format!("freshness: {error:#}")),
            crate::component::End::Straggler => tally.surprise("freshness: no answer came".into()),
        }
    }
}

fn watch(
    server: &Server,
    wanted: &Receiver<Sample>,
    found: &Sender<Found>,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut client = Client { server, stream: None, answer: Vec::new() };
    while let Ok(sample) = wanted.recv() {
        let placed = &sample.placed;
        let path = match placed.progress_at {
            Some(_) => format!("/status/{}", placed.stream),
            None => {
                let before = sample.stream_seq - sample.stream_seq.min(1);
                format!("/v1/streams/{}/events?after={before}&limit=1", placed.stream)
            }
        };
        let request = format!("GET {path} HTTP/1.1\r\n{}\r\n", server.fields);
        loop {
            let asked = client.ask(&request);
            let took = sample.acknowledged.elapsed();
            let is_there = match asked? {
                // The first event may not have been applied yet.
                (404, _) => false,
                (200, body) => match placed.progress_at {
                    Some(at) => updated_at(body).is_some_and(|updated| updated >= at),
                    None => memmem::find(body, placed.event_id.as_bytes()).is_some(),
                },
                (status, _) => bail!("status {status} of {path}"),
            };
            if is_there {
                let in_status = placed.progress_at.is_some();
                if found.try_send(Found { in_status, took }).is_err() {
                    return Ok(());
                }
                break;
            }
            if took > VISIBLE_MAX {
                bail!("event {} never became visible", sample.placed.event_id);
            }
            std::thread::sleep(AGAIN);
        }
        stop.sleep(BETWEEN);
    }
    Ok(())
}

/// When the process of a status last changed.
fn updated_at(body: &[u8]) -> Option<Timestamp> {
    const MEMBER: &[u8] = br#""last_update_at":""#;
    let text = &body[memmem::find(body, MEMBER)? + MEMBER.len()..];
    let text = &text[..memchr::memchr(b'"', text)?];
    Timestamp::parse(str::from_utf8(text).ok()?)
}

/// A connection that asks and waits.
struct Client<'s> {
    server: &'s Server,
    stream: Option<Wire<TcpStream>>,
    answer: Vec<u8>,
}

impl Client<'_> {
    fn ask(&mut self, request: &str) -> anyhow::Result<(u16, &[u8])> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.server.address, CONNECT_MAX)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(CONNECT_MAX))?;
                Wire::greet(stream, self.server)?
            }
        };
        stream.write_all(request.as_bytes())?;
        stream.flush()?;
        self.answer.clear();
        let mut piece = [0; 4096];
        loop {
            let read = stream.read(&mut piece)?;
            if read == 0 {
                bail!("the connection was closed");
            }
            self.answer.extend_from_slice(&piece[..read]);
            // Parsed twice, because a borrow cannot be kept from one turn of a loop to the next.
            if let Some((reply, _)) = reply::parse(&self.answer)? {
                if !reply.close {
                    self.stream = Some(stream);
                }
                break;
            }
        }
        let (reply, _) = reply::parse(&self.answer)?.context("the answer is there")?;
        Ok((reply.status, reply.body))
    }
}
