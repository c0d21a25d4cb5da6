//! One session at the server. This module turns Oracle's transactions into PostgreSQL's: a transaction opens by itself, a
//! statement that fails takes only itself back, and an array goes on behind a row that failed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::errors::{OraError, Result};
use crate::place::Place;
use crate::trips::Trips;
use crate::wire::{Answer, Answers, Canceller, Column, Failure, Value, Wire};

/// Rows sent before their answers are read: so few that the answers fit into the socket's buffer.
const ROWS_IN_FLIGHT: usize = 256;

const SAVEPOINT: &str = "standin";

/// How often a statement may change before its plans are forgotten; a test that makes texts must not fill the server.
const PREPARED_MAX: usize = 300;

/// A connection as OCI's server handle knows it.
#[derive(Debug, Default)]
pub(crate) struct Server {
    pub place: Mutex<Option<Arc<Place>>>,
    pub session: Mutex<Option<Session>>,
    pub dead: AtomicBool,
    /// Somebody called `OCIBreak` since the last call began.
    pub broken_off: AtomicBool,
    pub canceller: Mutex<Option<Canceller>>,
    pub in_transaction: Arc<AtomicBool>,
    pub trips: Arc<Mutex<Trips>>,
}

impl Server {
    pub(crate) fn place(&self) -> Option<Arc<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does something with the session, and notices when that ends it.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        let mut held = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if self.dead.load(Ordering::SeqCst) {
            return Err(OraError::of_number(3114));
        }
        let Some(session) = held.as_mut() else { return Err(OraError::of_number(3114)) };
        let done = work(session);
        self.in_transaction.store(session.in_transaction, Ordering::SeqCst);
        if done.as_ref().is_err_and(|error| error.fatal) {
            self.lose(&mut held);
        }
        done
    }

    /// Cuts the line, as a network does that breaks.
    pub(crate) fn cut(&self) {
        let mut held = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        self.lose(&mut held);
    }

    fn lose(&self, held: &mut Option<Session>) {
        self.dead.store(true, Ordering::SeqCst);
        self.in_transaction.store(false, Ordering::SeqCst);
        if let Some(mut session) = held.take() {
            session.wire.cut();
        }
    }

    pub(crate) fn trip(&self, what: &'static str) {
        self.trips.lock().unwrap_or_else(PoisonError::into_inner).count(what);
    }
}

/// What one statement did, row by row.
#[derive(Debug, Default)]
pub(crate) struct Executed {
    pub columns: Vec<Column>,
    /// One for each row that was tried; none where it failed.
    pub done: Vec<Option<Answer>>,
    pub errors: Vec<(usize, OraError)>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// It needs a transaction: anything but a plain query.
    pub transaction: bool,
    /// A row that fails does not end the array.
    pub tolerant: bool,
    pub deadline: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub wire: Wire,
    pub in_transaction: bool,
    /// The messages that this transaction took from the queue.
    pub dequeued: Vec<i64>,
    /// The savepoints of this transaction, with how many messages it had taken by then.
    saved: HashMap<String, usize>,
    pub listening: bool,
    place: Arc<Place>,
    prepared: HashMap<String, (String, Vec<Column>)>,
    names: u64,
}

impl Session {
    pub(crate) fn open(place: Arc<Place>) -> Result<Self> {
        let settings = [
            ("user", "postgres"),
            ("database", place.database.as_str()),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "UTC"),
            ("bytea_output", "hex"),
            ("client_min_messages", "error"),
            ("search_path", "sentinel, standin, pg_catalog"),
            ("application_name", "oci-standin"),
        ];
        let wire = Wire::connect(&place.socket, &settings).map_err(|failure| match failure {
            Failure::Lost(why) => {
                OraError::new(12541, format!("TNS:no listener (stand-in: {why})"))
            }
            other => OraError::of_failure(other, false),
        })?;
        let prepared = HashMap::new();
        let dequeued = Vec::new();
        Ok(Self {
            wire,
            in_transaction: false,
            dequeued,
            saved: HashMap::new(),
            listening: false,
            place,
            prepared,
            names: 0,
        })
    }

    /// Runs a text that returns nothing of interest.
    pub(crate) fn simple(&mut self, text: &str) -> Result<()> {
        self.wire.query(text);
        let answers = self.wire.finish(1, None);
        refused(answers.map_err(|failure| OraError::of_failure(failure, false))?)
    }

    /// Runs one of the stand-in's own statements and returns its columns and rows.
    pub(crate) fn rows(
        &mut self,
        text: &str,
        kinds: &[u32],
        values: Vec<Value>,
        how: How,
    ) -> Result<(Vec<Column>, Vec<Vec<Value>>)> {
        let mut executed = self.execute(text, kinds, &[values], how)?;
        if let Some((_, error)) = executed.errors.pop() {
            return Err(error);
        }
        let rows = executed.done.pop().flatten().map(|answer| answer.rows).unwrap_or_default();
        Ok((executed.columns, rows))
    }

    /// Runs one statement once for each row of values.
    pub(crate) fn execute(
        &mut self,
        text: &str,
        kinds: &[u32],
        rows: &[Vec<Value>],
        how: How,
    ) -> Result<Executed> {
        let mut executed = Executed::default();
        let mut start = 0;
        while start < rows.len() {
            let end = rows.len().min(start + ROWS_IN_FLIGHT);
            let first = !self.in_transaction && start == 0;
            let answers = self.pipeline(text, kinds, &rows[start..end], how)?;
            executed.columns = answers.columns.unwrap_or_default();
            let Some(refusal) = answers.refused else {
                executed.done.extend(answers.done.into_iter().map(Some));
                start = end;
                continue;
            };
            let error = OraError::of_refusal(&refusal);
            if error.stale_plan {
                // Somebody changed a table; it is prepared anew.
                self.prepared.clear();
                self.simple("DEALLOCATE ALL")?;
                continue;
            }
            let good = answers.done.len();
            if first && good == 0 && !how.tolerant {
                // Nothing happened, so there is no transaction either.
                self.take_back()?;
                executed.errors.push((0, error));
                return Ok(executed);
            }
            if good > 0 {
                // What the savepoint took back with the row that failed is done once more.
                let again = self.pipeline(text, kinds, &rows[start..start + good], how)?;
                if let Some(refusal) = again.refused {
                    return Err(OraError::of_refusal(&refusal));
                }
                executed.done.extend(again.done.into_iter().map(Some));
            }
            executed.errors.push((start + good, error));
            if !how.tolerant {
                return Ok(executed);
            }
            executed.done.push(None);
            start += good + 1;
        }
        Ok(executed)
    }

    fn pipeline(
        &mut self,
        text: &str,
        kinds: &[u32],
        rows: &[Vec<Value>],
        how: How,
    ) -> Result<Answers> {
        let mut ready = 1;
        if how.transaction && !self.in_transaction {
            self.wire.query("BEGIN");
            self.in_transaction = true;
            ready += 1;
        }
        let saved = self.in_transaction;
        if saved {
            self.wire.query(&format!("SAVEPOINT {SAVEPOINT}"));
            ready += 1;
        }
        let known = self.prepared.get(&key(text, kinds)).cloned();
        let (name, columns) = known.clone().unwrap_or_else(|| {
            self.names += 1;
            (format!("s{}", self.names), Vec::new())
        });
        if known.is_none() {
            self.wire.parse(&name, text, kinds);
            self.wire.describe(&name);
        }
        for row in rows {
            self.wire.run(&name, row);
        }
        if saved {
            self.wire.parse("", &format!("RELEASE SAVEPOINT {SAVEPOINT}"), &[]);
            self.wire.run("", &[]);
        }
        self.wire.sync();
        let mut answers = match self.wire.finish(ready, how.deadline) {
            Ok(answers) => answers,
            Err(Failure::TimedOut) => {
                if saved {
                    self.roll_back_to_savepoint()?;
                }
                return Err(OraError::of_number(3156));
            }
            Err(failure) => return Err(OraError::of_failure(failure, false)),
        };
        // The first answers are those of BEGIN and SAVEPOINT, the last that of RELEASE.
        answers.done.drain(..(ready - 1).min(answers.done.len()));
        if answers.refused.is_some() {
            answers.done.truncate(rows.len());
            if saved {
                self.roll_back_to_savepoint()?;
            }
            if known.is_none() {
                // It may have been prepared, or not.
                self.wire.close_statement(&name);
                self.wire.sync();
                self.wire
                    .finish(1, None)
                    .map_err(|failure| OraError::of_failure(failure, false))?;
            }
            return Ok(answers);
        }
        answers.done.truncate(rows.len());
        if known.is_none() {
            if self.prepared.len() >= PREPARED_MAX {
                self.prepared.clear();
                self.simple("DEALLOCATE ALL")?;
            } else {
                let columns = answers.columns.clone().unwrap_or_default();
                self.prepared.insert(key(text, kinds), (name, columns));
            }
        } else {
            answers.columns = Some(columns);
        }
        Ok(answers)
    }

    fn roll_back_to_savepoint(&mut self) -> Result<()> {
        self.simple(&format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}; RELEASE SAVEPOINT {SAVEPOINT}"))
    }

    /// Sets a savepoint of the caller's; one of the same name moves.
    pub(crate) fn save(&mut self, name: &str) -> Result<()> {
        let name = savepoint(name)?;
        if !self.in_transaction {
            self.simple("BEGIN")?;
            self.in_transaction = true;
        }
        self.simple(&format!("SAVEPOINT {name}"))?;
        self.saved.insert(name, self.dequeued.len());
        Ok(())
    }

    pub(crate) fn roll_back_to(&mut self, name: &str) -> Result<()> {
        let name = savepoint(name)?;
        let Some(taken) = self.saved.get(&name) else {
            return Err(OraError::new(
                1086,
                format!("savepoint '{name}' never established (stand-in)"),
            ));
        };
        if *taken != self.dequeued.len() {
            return Err(OraError::beyond("giving messages back to a savepoint"));
        }
        self.simple(&format!("ROLLBACK TO SAVEPOINT {name}"))
    }

    /// Ends a transaction without noting anything about messages.
    pub(crate) fn take_back(&mut self) -> Result<()> {
        self.saved.clear();
        if self.in_transaction {
            self.in_transaction = false;
            self.simple("ROLLBACK")?;
        }
        Ok(())
    }

    pub(crate) fn commit(&mut self) -> Result<()> {
        self.dequeued.clear();
        self.saved.clear();
        if !self.in_transaction {
            return Ok(());
        }
        self.in_transaction = false;
        self.simple("COMMIT")
    }

    /// Takes everything back. Messages that were dequeued have one attempt more before anybody can see them again.
    pub(crate) fn roll_back(&mut self) -> Result<()> {
        let dequeued = std::mem::take(&mut self.dequeued);
        if !dequeued.is_empty() {
            let mut other = Self::open(Arc::clone(&self.place))?;
            let list: Vec<String> = dequeued.iter().map(ToString::to_string).collect();
            let marked =
                other.simple(&format!("SELECT standin.attempted('{{{}}}')", list.join(",")));
            other.wire.close();
            marked?;
        }
        self.take_back()
    }
}

/// The name of a caller's savepoint here: none is the stand-in's own.
fn savepoint(name: &str) -> Result<String> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_plain { Ok(format!("own_{}", name.to_lowercase())) } else { Err(OraError::beyond(name)) }
}

fn key(text: &str, kinds: &[u32]) -> String {
    format!("{kinds:?}{text}")
}

fn refused(answers: Answers) -> Result<()> {
    answers.refused.map_or(Ok(()), |refusal| Err(OraError::of_refusal(&refusal)))
}
