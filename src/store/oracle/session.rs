//! One session with the database, which belongs to one thread. This module looks whether it still
//! lives, renews it, and opens it again when it is lost.
//!
//! What must stay true: a session is only ever used by the thread that owns it; a lost one is dropped and never
//! asked again; and a refused password is not tried tightly, because the database locks the account for that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use oracle::Connection;

use super::backoff::Backoff;
use super::bind::{self, Bind};
use super::connecting::{Attempt, Connecting};
use super::database::{Database, SessionState};
use super::errors::{self, Class};
use super::sql::{statement, text};
use crate::component;
use crate::domain::ids::TenantId;
use crate::store::{Result, StoreError};

/// How long a caller waits for a session after an attempt at one has failed.
const WAIT_WHILE_GONE: Duration = Duration::from_millis(250);
/// A session's life is shorter or longer by a part of this, so that a herd does not reconnect at once.
const LIFETIME_JITTER_PARTS: u32 = 5;

/// The role that answers questions of callers.
const ANSWERS: &str = "reader";
/// After so many errors in a row that nobody understands a thread says that it gets nowhere.
const UNCLEAR_TRIES: u32 = 3;
/// The pause after the first of them, and the longest.
const UNCLEAR_PAUSE: Duration = Duration::from_millis(50);
const UNCLEAR_PAUSE_MAX: Duration = Duration::from_secs(15);
/// A session that answers questions is opened anew no more often because of them.
const RENEWED_RECENTLY: Duration = Duration::from_secs(10);

/// How long a session may be waited for once it is time to stop: what is left to be said should still be said, where
/// the database answers.
const WAIT_WHILE_STOPPING: Duration = Duration::from_secs(1);
/// What is told while an attempt goes on.
const UNDER_WAY: &str = "the database has not answered yet; the attempt goes on";

/// An open connection.
struct Open {
    connection: Connection,
    renew_at: Instant,
    used_at: Instant,
    tenant: Option<TenantId>,
}

/// A session of one role, on the thread that owns it.
pub(super) struct Session {
    database: Arc<Database>,
    role: &'static str,
    place: usize,
    open: Option<Open>,
    /// The last one ended before its time.
    was_lost: bool,
    backoff: Backoff,
    last_fault: Option<(Class, String)>,
    /// Errors in a row that nobody understands.
    unclear: u32,
    /// When it was last opened anew because of one.
    renewed_at: Option<Instant>,
    /// An attempt that took longer than whoever asked for it would wait.
    connecting: Option<Connecting>,
    /// Rises with each connection, so that who began something on an older one notices.
    generation: u64,
}

impl Session {
    /// A session that is opened when it is first needed.
    pub(super) fn new(database: Arc<Database>, role: &'static str) -> Self {
        let place = {
            let mut sessions = database.sessions.lock();
            let count = sessions
                .iter()
                .filter(|state| state.role.split_once('-').is_some_and(|(name, _)| name == role));
            let number = count.count();
            sessions.push(SessionState {
                role: format!("{role}-{number}"),
                open_since: None,
                fault: None,
                stuck: None,
            });
            sessions.len() - 1
        };
        Self {
            database,
            role,
            place,
            open: None,
            was_lost: false,
            backoff: Backoff::new(),
            last_fault: None,
            unclear: 0,
            renewed_at: None,
            connecting: None,
            generation: 0,
        }
    }

    /// Which connection this is, counted from 1. It changes when a session was lost or renewed.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether there is a connection, be it alive or not.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the last attempt to get a connection failed.
    pub(super) fn cannot_connect(&self) -> bool {
        self.last_fault.is_some()
    }

    /// Drops the connection. The database rolls back what was not committed.
    pub(super) fn drop_connection(&mut self) {
        self.was_lost |= self.open.is_some();
        self.close();
    }

    fn close(&mut self) {
        self.open = None;
        self.database.sessions.lock()[self.place].open_since = None;
    }

    /// Gets a connection that is alive as far as can be told, between two transactions: an old one is renewed, an
    /// idle one is asked.
    pub(super) fn ready(&mut self, call: &'static str) -> Result<&Connection> {
        let now = Instant::now();
        let care = &self.database.care;
        let (ping_after, wait) = (care.ping_after, care.connect_wait);
        if let Some(open) = &self.open {
            // There is no time for a new one while everything stops.
            if now >= open.renew_at && !component::is_stopping() {
                self.close();
            } else if now.duration_since(open.used_at) >= ping_after
                && open.connection.ping().is_err()
            {
                self.drop_connection();
            }
        }
        if self.open.is_none() {
            // Once it is known that there is no way, nobody waits for long: those who ask would stand in line behind
            // each other.
            let gone = self.cannot_connect();
            self.connect(call, if gone { wait.min(WAIT_WHILE_GONE) } else { wait })?;
        }
        self.current(call)
    }

    /// The connection that a transaction has begun on. It is never replaced here.
    pub(super) fn current(&mut self, call: &'static str) -> Result<&Connection> {
        match &mut self.open {
            Some(open) => {
                open.used_at = Instant::now();
                Ok(&open.connection)
            }
            None => {
                Err(errors::told(call, Class::SessionLost, "the session was lost in the middle"))
            }
        }
    }

    /// Runs one transaction: what `work` did is committed, or rolled back when it fails.
    pub(super) fn transact<T>(
        &mut self,
        call: &'static str,
        work: impl FnOnce(&Connection) -> oracle::Result<T>,
    ) -> Result<T> {
        let connection = self.ready(call)?;
        let outcome = work(connection).and_then(|value| connection.commit().map(|()| value));
        match outcome {
            Ok(value) => {
                self.went_well();
                Ok(value)
            }
            Err(error) => Err(self.fail(call, &error)),
        }
    }

    /// Asks something outside of a transaction.
    pub(super) fn ask<T>(
        &mut self,
        call: &'static str,
        work: impl Fn(&Connection) -> oracle::Result<T>,
    ) -> Result<T> {
        let connection = self.ready(call)?;
        match work(connection) {
            Ok(value) => {
                self.went_well();
                Ok(value)
            }
            // Nothing is lost with a question, so one that met a dead session is asked again at once.
            Err(error) if errors::class_of(&error) == Class::SessionLost => {
                let _ = self.fail(call, &error);
                let connection = self.ready(call)?;
                work(connection).map_err(|error| self.fail(call, &error))
            }
            Err(error) => Err(self.fail(call, &error)),
        }
    }

    /// Tells the database for whom the next questions are: seen in its own views, and by row security.
    pub(super) fn for_tenant(&mut self, call: &'static str, tenant: &TenantId) -> Result<()> {
        self.ready(call)?;
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.tenant.as_ref() == Some(tenant) {
            return Ok(());
        }
        // Until it is told, it is for nobody.
        open.tenant = None;
        let binds = [Bind::text(tenant.as_str(), 50)];
        let told = bind::call(&open.connection, &text(statement!("set_tenant"), &[]), &binds);
        match told {
            Ok(_) => {
                open.tenant = Some(tenant.clone());
                Ok(())
            }
            Err(error) => Err(self.fail(call, &error)),
        }
    }

    /// Takes note of an error: a lost session is dropped, and in any other the transaction is rolled back.
    pub(super) fn fail(&mut self, call: &'static str, error: &oracle::Error) -> StoreError {
        let class = errors::class_of(error);
        self.fail_as(call, class, &error.to_string())
    }

    /// The same for an error whose class is known.
    pub(super) fn fail_as(&mut self, call: &'static str, class: Class, words: &str) -> StoreError {
        let rolled_back = !class.loses_session()
            && self.open.as_ref().is_some_and(|open| open.connection.rollback().is_ok());
        if !rolled_back || (class.is_unclear() && self.renews_after_unclear()) {
            self.drop_connection();
        }
        if class.is_unclear() {
            self.note_unclear(class, words);
        }
        // A lost race is no fault: it is run again.
        if !matches!(class, Class::Contention | Class::Deadlock | Class::QueueEmpty) {
            self.note_fault(words);
        }
        errors::told(call, class, words)
    }

    /// Takes note of an error that nobody understands. A few in a row are told as one that goes on, and each pause before
    /// the next attempt is longer.
    pub(super) fn note_unclear(&mut self, class: Class, words: &str) {
        // One question that cannot be answered says nothing about the next, which may be somebody else's.
        if self.role == ANSWERS {
            return;
        }
        self.unclear = self.unclear.saturating_add(1);
        let pause = (UNCLEAR_PAUSE * (1 << self.unclear.min(8))).min(UNCLEAR_PAUSE_MAX);
        self.backoff.not_before = Some(Instant::now() + pause);
        self.last_fault = Some((class, words.to_string()));
        if self.unclear >= UNCLEAR_TRIES {
            let words = errors::clean(words);
            log::error!(
                role = self.role, times = self.unclear, next_attempt_ms = u64::try_from(pause.as_millis()).unwrap_or(0);
                "this thread gets nowhere, and nobody knows why; it goes on trying: {words}"
            );
            self.database.sessions.lock()[self.place].stuck = Some(words);
        }
    }

    /// Takes note that something was done.
    pub(super) fn went_well(&mut self) {
        if self.unclear > 0 {
            self.unclear = 0;
            self.backoff.not_before = None;
            self.last_fault = None;
            let was_stuck = self.database.sessions.lock()[self.place].stuck.take().is_some();
            if was_stuck {
                log::warn!(role = self.role; "this thread gets on again");
            }
        }
    }

    /// Whether another session may do better. One that answers questions is not opened anew for each that cannot be
    /// answered: whoever asks such a one could keep it from answering others.
    fn renews_after_unclear(&mut self) -> bool {
        let now = Instant::now();
        let recently = self.renewed_at.is_some_and(|at| now.duration_since(at) < RENEWED_RECENTLY);
        if self.role == ANSWERS && recently {
            return false;
        }
        self.renewed_at = Some(now);
        true
    }

    /// Takes note of an error for `/ready`, and leaves transaction and session alone.
    pub(super) fn note_fault(&self, words: &str) {
        let fault = (errors::clean(words), Instant::now());
        self.database.sessions.lock()[self.place].fault = Some(fault);
    }

    /// Waits for a connection, `wait` at most, with pauses that grow. Ends at once when it is time to stop.
    fn connect(&mut self, call: &'static str, wait: Duration) -> Result<()> {
        let stopping = component::is_stopping();
        let wait = if stopping { wait.min(WAIT_WHILE_STOPPING) } else { wait };
        let deadline = Instant::now() + wait;
        loop {
            let connecting = match self.connecting.take() {
                Some(connecting) => connecting,
                None => {
                    self.back_off(call, stopping, deadline)?;
                    Connecting::start(&self.database, self.role)
                }
            };
            let error = match connecting.wait(deadline) {
                Attempt::Open(connection) => {
                    self.keep(*connection);
                    return Ok(());
                }
                Attempt::Failed(error) => error,
                Attempt::UnderWay(connecting) => {
                    // Whoever asks next waits for the same attempt.
                    self.connecting = Some(connecting);
                    // Why the one before failed is the best that is known of this one.
                    let words = match &self.last_fault {
                        Some((_, words)) => format!("{words}; {UNDER_WAY}"),
                        None => UNDER_WAY.to_string(),
                    };
                    return Err(errors::told(call, Class::CannotConnect, &words));
                }
            };
            let class = match errors::class_of(&error) {
                Class::Unknown | Class::CallTimeout => Class::CannotConnect,
                class => class,
            };
            let words = error.to_string();
            let pause = self.backoff.pause(class);
            self.backoff.not_before = Some(Instant::now() + pause);
            self.note_fault(&words);
            log::warn!(
                role = self.role, next_attempt_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                "no session with the database: {}", errors::clean(&words)
            );
            self.last_fault = Some((class, words));
        }
    }

    /// Lets the pause after a failed attempt pass.
    fn back_off(&self, call: &'static str, stopping: bool, deadline: Instant) -> Result<()> {
        let (Some(not_before), Some((class, words))) = (self.backoff.not_before, &self.last_fault)
        else {
            return Ok(());
        };
        if not_before <= Instant::now() {
            return Ok(());
        }
        // A pause that is longer than the caller waits is told at once.
        let waits = not_before <= deadline && !stopping;
        // The stop may have come while the attempt failed.
        if waits && component::pause_until(not_before) {
            return Ok(());
        }
        Err(errors::told(call, *class, words))
    }

    fn keep(&mut self, connection: Connection) {
        let now = Instant::now();
        let lifetime = self.database.care.lifetime_max;
        let part = lifetime / LIFETIME_JITTER_PARTS;
        let millis = u64::try_from(part.as_millis()).unwrap_or(u64::MAX);
        let jitter = Duration::from_millis(self.backoff.spread(millis));
        self.backoff.failures = 0;
        self.backoff.not_before = None;
        self.last_fault = None;
        self.generation += 1;
        if std::mem::take(&mut self.was_lost) {
            self.database.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        self.open = Some(Open {
            connection,
            renew_at: now + (lifetime - part / 2) + jitter,
            used_at: now,
            tenant: None,
        });
        let state = &mut self.database.sessions.lock()[self.place];
        state.open_since = Some(now);
        state.fault = None;
    }
}
