//! A service that answers as it is told to. This module listens on a port of loopback, keeps what is posted to it in
//! the order of arrival, and can be slow, busy or silent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use sentinel::component::Component;
use serde_json::Value;

/// Nothing in these tests takes so long unless it is broken.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) key: String,
    pub(crate) authorization: String,
    pub(crate) body: Value,
}

/// What to do with a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reaction {
    Answer(u16),
    /// Keep the connection open and never say a word.
    Silence,
}

pub(crate) struct FakeService {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Receiver<Seen>,
}

/// Decides about the request of that number, counted from 0.
type Decide = dyn Fn(usize, &Seen) -> Reaction + Send + Sync;

impl FakeService {
    /// Listens on a free port.
    pub(crate) fn start(decide: impl Fn(usize, &Seen) -> Reaction + Send + Sync + 'static) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), decide)
    }

    /// Takes over a listener that is there already.
    pub(crate) fn start_on(
        listener: TcpListener,
        decide: impl Fn(usize, &Seen) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, seen) = channel::unbounded();
        let (ended, _ends) = channel::unbounded();
        let decide: Arc<Decide> = Arc::new(decide);
        Component::start("fake-accept", ended.clone(), move |_| {
            let count = Arc::default();
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let (decide, sender, count) =
                    (Arc::clone(&decide), sender.clone(), Arc::clone(&count));
                let stream = stream?;
                silent.push(stream.try_clone()?);
                Component::start("fake-answer", ended.clone(), move |_| {
                    serve(stream, &count, &*decide, &sender);
                    Ok(())
                })?;
            }
            Ok(())
        })
        .unwrap();
        Self { address, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request.
    pub(crate) fn next(&self) -> Seen {
        self.seen.recv_timeout(SOON).expect("a request arrives")
    }

    /// Every request up to one that ends a run, that one included.
    pub(crate) fn until_the_end(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        loop {
            let next = self.next();
            let end = next.path.ends_with("/complete") || next.path.ends_with("/error");
            seen.push(next);
            if end {
                return seen;
            }
        }
    }
}

fn serve(
    mut stream: TcpStream,
    count: &parking_lot::Mutex<usize>,
    decide: &Decide,
    sender: &Sender<Seen>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(seen) = read_request(&mut reader) {
        let number = {
            let mut count = count.lock();
            *count += 1;
            *count - 1
        };
        let reaction = decide(number, &seen);
        let _ = sender.send(seen);
        match reaction {
            Reaction::Answer(status) => {
                let answer = format!("HTTP/1.1 {status} As told\r\ncontent-length: 2\r\n\r\n{{}}");
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
            Reaction::Silence => return,
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let path = line.split(' ').nth(1)?.to_string();
    let (mut length, mut key, mut authorization) = (0, String::new(), String::new());
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "idempotency-key" => key = value.to_string(),
            "authorization" => authorization = value.to_string(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some(Seen { path, key, authorization, body })
}
