//! Speaks PostgreSQL's protocol version 3 over a Unix socket. This module knows messages and nothing of Oracle.
//!
//! Values travel as text. Trust authentication only: the socket lies in a folder that nobody else may enter.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a server may take to stop a call that was cancelled, before the session counts as lost.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// One value of a row or of a bind; none is NULL.
pub(crate) type Value = Option<Box<[u8]>>;

/// What a server said about a call that failed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusal {
    pub state: String,
    pub message: String,
    pub constraint: String,
    pub table: String,
    pub column: String,
    pub position: usize,
}

#[derive(Debug)]
pub(crate) enum Failure {
    /// The server refused and goes on.
    Refused(Box<Refusal>),
    /// The deadline passed; the call was cancelled and the session goes on.
    TimedOut,
    /// There is no session any more.
    Lost(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub name: String,
    pub kind: u32,
    pub modifier: i32,
}

/// What one statement answered.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub rows: Vec<Vec<Value>>,
    pub count: u64,
}

/// What all statements up to the end of a pipeline answered; a refusal ends it early.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub columns: Option<Vec<Column>>,
    pub done: Vec<Answer>,
    pub refused: Option<Box<Refusal>>,
}

/// How to cancel what a session does, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Canceller {
    socket: PathBuf,
    process: i32,
    secret: i32,
}

impl Canceller {
    pub(crate) fn cancel(&self) -> io::Result<()> {
        let mut stream = UnixStream::connect(&self.socket)?;
        let mut message = Vec::with_capacity(16);
        for part in [16, 80_877_102, self.process, self.secret] {
            message.extend_from_slice(&part.to_be_bytes());
        }
        stream.write_all(&message)?;
        // The server closes once it has passed the request on.
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).map(|_| ())
    }
}

#[derive(Debug)]
pub(crate) struct Wire {
    stream: UnixStream,
    out: Vec<u8>,
    input: Vec<u8>,
    read_to: usize,
    pub canceller: Canceller,
    /// A notification came since this was last cleared.
    pub notified: bool,
}

impl Wire {
    pub(crate) fn connect(socket: &Path, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        let stream = UnixStream::connect(socket)?;
        let canceller = Canceller { socket: socket.to_owned(), process: 0, secret: 0 };
        let (out, input) = (Vec::new(), Vec::new());
        let mut wire = Self { stream, out, input, read_to: 0, canceller, notified: false };
        let mut message = vec![0, 0, 0, 0];
        message.extend_from_slice(&196_608_i32.to_be_bytes());
        for (name, value) in settings {
            message.extend_from_slice(name.as_bytes());
            message.push(0);
            message.extend_from_slice(value.as_bytes());
            message.push(0);
        }
        message.push(0);
        let length = i32::try_from(message.len()).unwrap_or(i32::MAX);
        message[..4].copy_from_slice(&length.to_be_bytes());
        wire.stream.write_all(&message)?;
        let deadline = Some(Instant::now() + Duration::from_secs(30));
        loop {
            let (kind, body) = wire.message(deadline)?;
            match kind {
                b'K' if body.len() == 8 => {
                    wire.canceller.process = number(&body);
                    wire.canceller.secret = number(&body[4..]);
                }
                b'R' if number(&body) != 0 => {
                    return Err(Failure::Lost("the server wants a password".to_owned()));
                }
                b'E' => return Err(Failure::Refused(Box::new(refusal(&body)))),
                b'Z' => return Ok(wire),
                _ => {}
            }
        }
    }

    pub(crate) fn close(&mut self) {
        let _ = self.stream.write_all(&[b'X', 0, 0, 0, 4]);
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Cuts the line without a word, as a network does.
    pub(crate) fn cut(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    pub(crate) fn query(&mut self, text: &str) {
        self.put(b'Q', |body| {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        });
    }

    pub(crate) fn parse(&mut self, name: &str, text: &str, kinds: &[u32]) {
        self.put(b'P', |body| {
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            body.extend_from_slice(text.as_bytes());
            body.push(0);
            short(body, kinds.len());
            for kind in kinds {
                body.extend_from_slice(&kind.to_be_bytes());
            }
        });
    }

    pub(crate) fn describe(&mut self, name: &str) {
        self.put(b'D', |body| {
            body.push(b'S');
            body.extend_from_slice(name.as_bytes());
            body.push(0);
        });
    }

    pub(crate) fn run(&mut self, name: &str, values: &[Value]) {
        self.put(b'B', |body| {
            body.push(0);
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            short(body, 0);
            short(body, values.len());
            for value in values {
                match value {
                    None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
                    Some(bytes) => {
                        let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
                        body.extend_from_slice(&length.to_be_bytes());
                        body.extend_from_slice(bytes);
                    }
                }
            }
            short(body, 0);
        });
        self.put(b'E', |body| body.extend_from_slice(&[0, 0, 0, 0, 0]));
    }

    pub(crate) fn close_statement(&mut self, name: &str) {
        self.put(b'C', |body| {
            body.push(b'S');
            body.extend_from_slice(name.as_bytes());
            body.push(0);
        });
    }

    pub(crate) fn sync(&mut self) {
        self.put(b'S', |_| {});
    }

    fn put(&mut self, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(kind);
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 4]);
        fill(&mut self.out);
        let length = i32::try_from(self.out.len() - start).unwrap_or(i32::MAX);
        self.out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Sends what was put together and reads until the server was ready as often as there were queries and syncs.
    pub(crate) fn finish(
        &mut self,
        mut ready: usize,
        deadline: Option<Instant>,
    ) -> Result<Answers, Failure> {
        let sent = self.stream.write_all(&self.out);
        self.out.clear();
        if let Err(error) = sent {
            // Why the server hung up is the last thing it said.
            return Err(self.last_words(error));
        }
        let mut answers = Answers::default();
        let mut rows = Vec::new();
        let mut limit = deadline;
        let mut late = false;
        while ready > 0 {
            let (kind, body) = match self.message(limit) {
                Ok(message) => message,
                Err(Failure::TimedOut) if !late => {
                    late = true;
                    limit = Some(Instant::now() + CANCEL_PATIENCE);
                    let _ = self.canceller.cancel();
                    continue;
                }
                Err(Failure::TimedOut) => {
                    self.cut();
                    return Err(Failure::Lost("no answer, not even to a cancel".to_owned()));
                }
                Err(failure) => return Err(failure),
            };
            match kind {
                b'T' => answers.columns = Some(columns(&body)),
                b'D' => rows.push(row(&body)),
                b'C' => {
                    let rows = std::mem::take(&mut rows);
                    answers.done.push(Answer { rows, count: count(&body) });
                }
                b'I' => answers.done.push(Answer::default()),
                b'E' => {
                    let refusal = refusal(&body);
                    if refusal.state.starts_with("57P0") {
                        self.cut();
                        return Err(Failure::Refused(Box::new(refusal)));
                    }
                    if answers.refused.is_none() {
                        answers.refused = Some(Box::new(refusal));
                    }
                }
                b'Z' => ready -= 1,
                _ => {}
            }
        }
        if late && answers.refused.as_ref().is_some_and(|refusal| refusal.state == "57014") {
            return Err(Failure::TimedOut);
        }
        Ok(answers)
    }

    fn last_words(&mut self, error: io::Error) -> Failure {
        while let Ok((kind, body)) = self.message(Some(Instant::now() + Duration::from_millis(200)))
        {
            if kind == b'E' {
                return Failure::Refused(Box::new(refusal(&body)));
            }
        }
        Failure::Lost(error.to_string())
    }

    /// Waits for a notification, or for `pause` to pass.
    pub(crate) fn wait(&mut self, pause: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + pause;
        while !self.notified {
            match self.message(Some(deadline)) {
                Ok((b'E', body)) => return Err(Failure::Refused(Box::new(refusal(&body)))),
                Ok(_) => {}
                Err(Failure::TimedOut) => return Ok(()),
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    fn message(&mut self, deadline: Option<Instant>) -> Result<(u8, Vec<u8>), Failure> {
        loop {
            let held = &self.input[self.read_to..];
            if held.len() >= 5 {
                let length = usize::try_from(number(&held[1..])).unwrap_or(0).max(4);
                if held.len() > length {
                    let (kind, body) = (held[0], held[5..=length].to_vec());
                    self.read_to += length + 1;
                    if self.read_to == self.input.len() {
                        self.input.clear();
                        self.read_to = 0;
                    }
                    if kind == b'A' {
                        self.notified = true;
                    }
                    return Ok((kind, body));
                }
            }
            self.fill(deadline)?;
        }
    }

    fn fill(&mut self, deadline: Option<Instant>) -> Result<(), Failure> {
        let pause = match deadline {
            None => None,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Failure::TimedOut);
                }
                Some(left)
            }
        };
        self.stream.set_read_timeout(pause)?;
        if self.read_to > 0 {
            self.input.drain(..self.read_to);
            self.read_to = 0;
        }
        let held = self.input.len();
        self.input.resize(held + 65_536, 0);
        let got = self.stream.read(&mut self.input[held..]);
        self.input.truncate(held + *got.as_ref().unwrap_or(&0));
        match got {
            Ok(0) => Err(Failure::Lost("the server hung up".to_owned())),
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(Failure::TimedOut),
                io::ErrorKind::Interrupted => Ok(()),
                _ => Err(error.into()),
            },
        }
    }
}

fn short(body: &mut Vec<u8>, number: usize) {
    body.extend_from_slice(&u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
}

fn number(bytes: &[u8]) -> i32 {
    bytes.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_be_bytes)
}

fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let rest = bytes.get(end + 1..).unwrap_or_default();
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), rest)
}

fn columns(body: &[u8]) -> Vec<Column> {
    let mut found = Vec::new();
    let mut rest = body.get(2..).unwrap_or_default();
    while !rest.is_empty() {
        let (name, fixed) = text(rest);
        if fixed.len() < 18 {
            break;
        }
        found.push(Column {
            name,
            kind: number(&fixed[6..]).cast_unsigned(),
            modifier: number(&fixed[12..]),
        });
        rest = &fixed[18..];
    }
    found
}

fn row(body: &[u8]) -> Vec<Value> {
    let mut found = Vec::new();
    let mut rest = body.get(2..).unwrap_or_default();
    while rest.len() >= 4 {
        let length = number(rest);
        rest = &rest[4..];
        match usize::try_from(length) {
            Err(_) => found.push(None),
            Ok(length) => {
                found.push(Some(rest[..length].into()));
                rest = &rest[length..];
            }
        }
    }
    found
}

fn count(body: &[u8]) -> u64 {
    let (tag, _) = text(body);
    tag.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

fn refusal(body: &[u8]) -> Refusal {
    let mut found = Refusal::default();
    let mut rest = body;
    while let Some((field, after)) = rest.split_first() {
        if *field == 0 {
            break;
        }
        let (value, next) = text(after);
        match field {
            b'C' => found.state = value,
            b'M' => found.message = value,
            b'n' => found.constraint = value,
            b't' => found.table = value,
            b'c' => found.column = value,
            b'P' => found.position = value.parse().unwrap_or(0),
            _ => {}
        }
        rest = next;
    }
    found
}
