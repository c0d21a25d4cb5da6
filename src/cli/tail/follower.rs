//! The stream of log rows. This module reads it, and connects again behind the last row that came where it is cut.
//!
//! An event counts when the empty line behind it has come. What is cut in the middle comes again.

use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use crossbeam::channel::Sender;

use crate::cli::backoff::{jittered, rest_after};
use crate::cli::client::{Client, Streamed};
use crate::component::Stop;
use crate::config::Overrides;

/// How long the beginning of an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest line of a stream: a row has 64 KiB of details at most, and each of its characters may be an escape.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// So many refusals of the token in a row are an answer: whoever rotates it has had the time.
const REFUSALS_MAX: u32 = 5;

/// What the stream says, and on which connection.
pub(super) struct Told {
    pub(super) generation: u32,
    pub(super) news: News,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// An answer has begun.
    Began,
    /// A sign of life without a row.
    Alive,
    Row {
        id: String,
        row: String,
    },
    /// Every row that is there has come.
    UpToDate,
    /// The next attempt follows after `rest`.
    Cut {
        why: String,
        rest: Duration,
    },
    /// No attempt would help.
    Refused {
        why: String,
    },
    /// An answer of `/status`.
    Status(String),
}

/// Reads the stream of one process.
pub(super) struct Follower {
    pub(super) overrides: Overrides,
    pub(super) target: String,
    /// The stream has an end.
    pub(super) ends: bool,
    pub(super) place: Option<String>,
    pub(super) generation: u32,
    pub(super) teller: Sender<Told>,
}

/// What an attempt came to.
enum Attempt {
    /// Nobody listens any more, or there is nothing more to read.
    Over,
    Cut(String),
    Refused {
        status: u16,
        why: String,
    },
}

impl Follower {
    /// Reads until nobody listens any more.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub(super) fn work(mut self, stop: &Stop) -> anyhow::Result<()> {
        let mut client = Client::from_environment(self.overrides.clone())?;
        let (mut failures, mut refusals) = (0, 0);
        while !stop.is_set() {
            let before = self.place.clone();
            let why = match self.attempt(&mut client, stop) {
                Attempt::Over => return Ok(()),
                Attempt::Cut(why) => {
                    refusals = 0;
                    why
                }
                Attempt::Refused { status, why } => {
                    refusals += 1;
                    let is_final = status != 401 || refusals == REFUSALS_MAX;
                    if is_final {
                        self.tell(News::Refused { why });
                        return Ok(());
                    }
                    why
                }
            };
            failures = if self.place == before { failures + 1 } else { 1 };
            let rest = jittered(rest_after(failures));
            if !self.tell(News::Cut { why, rest }) || !stop.sleep(rest) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn tell(&self, news: News) -> bool {
        self.teller.send(Told { generation: self.generation, news }).is_ok()
    }

    fn attempt(&mut self, client: &mut Client, stop: &Stop) -> Attempt {
        let mut fields = vec![("accept", "text/event-stream")];
        if let Some(place) = &self.place {
            fields.push(("last-event-id", place));
        }
        let body = match client.stream(&self.target, &fields, PATIENCE) {
            Ok(Streamed::Body(body)) => body,
            Ok(Streamed::Answer(answer)) => {
                let why = answer.words();
                return match answer.status {
                    408 | 425 | 429 | 500.. => Attempt::Cut(why),
                    status => Attempt::Refused { status, why },
                };
            }
            Err(error) => return Attempt::Cut(format!("{error:#}")),
        };
        if !self.tell(News::Began) {
            return Attempt::Over;
        }
        let mut stream = Events::new(body);
        loop {
            let event = match stream.next() {
                Ok(event) => event,
                Err(error) => return Attempt::Cut(error.to_string()),
            };
            if stop.is_set() {
                return Attempt::Over;
            }
            let news = match event {
                Some(Event::Comment) => News::Alive,
                Some(Event::Row { id, row }) => {
                    self.place = Some(id.clone());
                    News::Row { id, row }
                }
                None => match stream.last_words.take() {
                    Some(words) => return Attempt::Cut(words),
                    None if self.ends => {
                        self.tell(News::UpToDate);
                        return Attempt::Over;
                    }
                    None => return Attempt::Cut("the service has ended it".to_string()),
                },
            };
            if !self.tell(news) {
                return Attempt::Over;
            }
        }
    }
}

/// One server-sent event.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    Comment,
    Row { id: String, row: String },
}

/// Takes a stream apart into its events.
struct Events<R> {
    source: BufReader<R>,
    /// A comment with words, as long as no row has come after it: why the stream ends.
    last_words: Option<String>,
}

impl<R: Read> Events<R> {
    fn new(source: R) -> Self {
        Self { source: BufReader::new(source), last_words: None }
    }

    /// The next event. None: the stream has ended, whole.
    fn next(&mut self) -> io::Result<Option<Event>> {
        let (mut id, mut row) = (None, None);
        loop {
            let Some(line) = self.line()? else {
                return if id.is_none() && row.is_none() {
                    Ok(None)
                } else {
                    Err(io::Error::other("an event is cut in the middle"))
                };
            };
            if let Some(words) = line.strip_prefix(':') {
                let words = words.trim();
                if !words.is_empty() {
                    self.last_words = Some(words.to_string());
                }
                return Ok(Some(Event::Comment));
            } else if let Some(value) = line.strip_prefix("id:") {
                id = Some(value.trim().to_string());
            } else if let Some(value) = line.strip_prefix("data:") {
                row = Some(value.trim().to_string());
            } else if line.is_empty()
                && let (Some(id), Some(row)) = (id.take(), row.take())
            {
                self.last_words = None;
                return Ok(Some(Event::Row { id, row }));
            }
        }
    }

    /// A line without its end. None: there is none.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        (&mut self.source).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
        match bytes.pop() {
            None => Ok(None),
            Some(b'\n') => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Some(_) => Err(io::Error::other("a line is cut in the middle, or too long")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, row: &str) -> Event {
        Event::Row { id: id.to_string(), row: row.to_string() }
    }

    #[test]
    fn a_stream_comes_apart_into_its_rows_and_says_why_it_ends() {
        let text =
            ":\n\nid: n.1\ndata: {\"a\":1}\n\nid: n.2\ndata: {}\n\n: the service is stopping\n\n";
        let mut events = Events::new(text.as_bytes());
        assert_eq!(events.next().unwrap(), Some(Event::Comment));
        assert_eq!(events.next().unwrap(), Some(row("n.1", "{\"a\":1}")));
        assert_eq!(events.next().unwrap(), Some(row("n.2", "{}")));
        assert_eq!(events.last_words, None);
        assert_eq!(events.next().unwrap(), Some(Event::Comment));
        assert_eq!(events.next().unwrap(), None);
        assert_eq!(events.last_words.as_deref(), Some("the service is stopping"));
    }

    #[test]
    fn an_event_that_is_cut_does_not_count_wherever_it_is_cut() {
        let text = "id: n.1\ndata: {\"a\":1}\n\n";
        for at in 1..text.len() {
            let mut events = Events::new(&text.as_bytes()[..at]);
            assert!(events.next().is_err(), "cut after {at} bytes");
        }
        assert!(Events::new(text.as_bytes()).next().unwrap().is_some());
    }

    #[test]
    fn a_line_without_an_end_does_not_fill_the_memory() {
        let mut events = Events::new(io::repeat(b'x'));
        let words = events.next().unwrap_err().to_string();
        assert!(words.contains("too long"), "{words}");
    }
}
