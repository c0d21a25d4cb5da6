//! How soon an acknowledged event is visible in its stream. This module asks for sampled events until they are there.
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
use super::workload::Sample;
use super::{Server, reply};
use crate::component::{Component, Stop};

/// The pause between two samples.
const BETWEEN: Duration = Duration::from_millis(25);

/// The pause between two questions for one event: the error of a measurement.
const AGAIN: Duration = Duration::from_micros(200);

/// An event that is not visible by then never will be.
const VISIBLE_MAX: Duration = Duration::from_secs(30);

/// Results kept until the end: more than samples taken in an hour.
const RESULTS_MAX: usize = 200_000;

/// Looks for sampled events.
pub(super) struct Sampler {
    samples: Sender<Sample>,
    results: Receiver<Duration>,
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
        for took in results.try_iter() {
            tally.freshness.add(took);
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
    found: &Sender<Duration>,
    stop: &Stop,
) -> anyhow::Result<()> {
    let mut client = Client { server, stream: None, answer: Vec::new() };
    while let Ok(sample) = wanted.recv() {
        let request = format!(
            "GET /v1/streams/{}/events?after={}&limit=1 HTTP/1.1\r\n{}\r\n",
            sample.placed.stream,
            sample.stream_seq - sample.stream_seq.min(1),
            server.fields
        );
        loop {
            let asked = client.ask(&request);
            let took = sample.acknowledged.elapsed();
            match asked? {
                // The stream's first event may not have been applied yet.
                (404, _) => {}
                (200, body) if memmem::find(body, sample.placed.event_id.as_bytes()).is_some() => {
                    if found.try_send(took).is_err() {
                        return Ok(());
                    }
                    break;
                }
                (200, _) => {}
                (status, _) => bail!("status {status} of a stream"),
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

/// A connection that asks and waits.
struct Client<'s> {
    server: &'s Server,
    stream: Option<TcpStream>,
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
                stream
            }
        };
        stream.write_all(request.as_bytes())?;
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
