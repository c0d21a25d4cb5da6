//! One session with the database, which belongs to one thread. This module opens it, sets it up, looks whether it
//! still lives, renews it, and opens it again when it is lost.
//!
//! What must stay true: a session is only ever used by the thread that owns it; a lost one is dropped and never
//! asked again; and a refused password is not tried tightly, because the database locks the account for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel;
use oracle::{Connection, Connector, InitParams, Version};
use parking_lot::Mutex;

use super::address::{Address, Credentials};
use super::bind::{self, Bind};
use super::connecting::{Attempt, Connecting};
use super::errors::{self, Class};
use super::sql::{statement, text};
use crate::component::{self, Waited};
use crate::domain::ids::TenantId;
use crate::domain::time::Timestamp;
use crate::store::{Result, StoreError};

/// What the service calls itself in V$SESSION.
const MODULE: &str = "process-sentinel";
/// Statements kept open for each session: more than any role uses, so none is parsed twice.
const STATEMENTS_MAX: u32 = 60;
/// The longest that one call may take. It must be longer than a dequeue waits, else an empty queue looks like a fault.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that a dequeue waits: short, because nothing reliable can wake it for a stop.
pub(super) const DEQUEUE_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a caller waits for a session after an attempt at one has failed.
const WAIT_WHILE_GONE: Duration = Duration::from_millis(250);
/// A session's life is shorter or longer by a part of this, so that a herd does not reconnect at once.
const LIFETIME_JITTER_PARTS: u32 = 5;
/// What the character set of the database must be: any other loses characters without telling.
const CHARACTER_SET: &str = "AL32UTF8";

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

const _: () = assert!(CALL_TIMEOUT.as_secs() > 3 * DEQUEUE_WAIT_MAX.as_secs());

/// How sessions are kept.
#[derive(Debug, Clone)]
pub struct Care {
    /// A session that was idle for so long is asked whether it lives before it is used.
    pub ping_after: Duration,
    /// A session is renewed after about so long.
    pub lifetime_max: Duration,
    /// How long a caller waits for a session while the database is out of reach, before it is told so.
    pub connect_wait: Duration,
}

impl Default for Care {
    fn default() -> Self {
        Self {
            ping_after: Duration::from_secs(60),
            lifetime_max: Duration::from_secs(3600),
            connect_wait: Duration::from_millis(5000),
        }
    }
}

/// What `/ready` says of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    pub role: String,
    /// Since when it is open; None: it is not.
    pub open_since: Option<Instant>,
    /// The last fault since it was opened, and when that was.
    pub fault: Option<(String, Instant)>,
    /// What nobody understands and what goes on: nothing has gone well since.
    pub stuck: Option<String>,
}

/// What all sessions of a store share.
pub(super) struct Database {
    pub(super) address: Address,
    pub(super) care: Care,
    /// The schema that holds our tables.
    pub(super) schema: String,
    pub(super) sessions: Mutex<Vec<SessionState>>,
    /// `19.3.0.0.0 (Oracle Database 19c …)`, once a session was open.
    pub(super) version: Mutex<Option<String>>,
    /// Sessions that were opened again after they were lost.
    pub(super) reconnects: AtomicU64,
}

impl Database {
    pub(super) fn new(address: Address, care: Care, schema: String) -> Self {
        Self {
            address,
            care,
            schema,
            sessions: Mutex::new(Vec::new()),
            version: Mutex::new(None),
            reconnects: AtomicU64::new(0),
        }
    }
}

/// Finds and loads the client library, once for the process.
///
/// # Errors
/// [`StoreError::Unreachable`] with what to install.
pub(super) fn load_client(address: &Address) -> Result<String> {
    const CALL: &str = "load the Oracle client";
    let load = || -> oracle::Result<String> {
        let mut parameters = InitParams::new();
        parameters.default_driver_name(format!("{MODULE} : {}", env!("CARGO_PKG_VERSION")))?;
        if let Some(folder) = &address.client_lib_dir {
            parameters.oracle_client_lib_dir(folder)?;
        }
        // A wallet folder that holds sqlnet.ora or tnsnames.ora is the client's configuration, too.
        if let Some(folder) = address.wallet.as_ref().filter(|folder| {
            ["sqlnet.ora", "tnsnames.ora"].iter().any(|name| folder.join(name).is_file())
        }) {
            parameters.oracle_client_config_dir(folder)?;
        }
        parameters.init()?;
        Ok(Version::client()?.to_string())
    };
    load().map_err(|error| {
        let class = match errors::class_of(&error) {
            // Whatever else keeps the library from being loaded is for the same hand to mend.
            Class::Unknown => Class::NoClient,
            class => class,
        };
        unreachable(errors::told(CALL, class, &error.to_string()))
    })
}

/// The same error, as one that trying again does not mend.
pub(super) fn unreachable(error: StoreError) -> StoreError {
    match error {
        StoreError::Disconnected { call, source } => StoreError::Unreachable { call, source },
        other => other,
    }
}

/// Pauses between attempts: each twice as long as the one before, spread so that many do not come at once.
#[derive(Debug)]
struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
    seed: u64,
}

impl Backoff {
    fn new() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self { failures: 0, not_before: None, seed: RandomState::new().hash_one(MODULE) | 1 }
    }

    /// A number below `limit`, another one at each call.
    fn spread(&mut self, limit: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % limit.max(1)
    }

    /// The pause after one more failure of this class: between half and all of what doubling gives.
    fn pause(&mut self, class: Class) -> Duration {
        let (first, longest) = class.pauses();
        let whole = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        let millis = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
        let shortest = u64::try_from(first.as_millis()).unwrap_or(0).max(millis / 2);
        Duration::from_millis(shortest + self.spread(millis - shortest + 1))
    }
}

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
                    return Err(errors::told(call, Class::CannotConnect, UNDER_WAY));
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
        if waits
            && matches!(component::await_until(&channel::never::<()>(), not_before), Waited::Late)
        {
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

/// Opens a connection and sets it up.
pub(super) fn open(database: &Database, role: &str) -> oracle::Result<Connection> {
    let address = &database.address;
    let mut connector = match &address.credentials {
        Credentials::Password { user, password } => {
            Connector::new(user.as_str(), password.reveal(), address.connect.as_str())
        }
        Credentials::Wallet => {
            let mut connector = Connector::new("", "", address.connect.as_str());
            connector.external_auth(true);
            connector
        }
    };
    connector.stmt_cache_size(STATEMENTS_MAX);
    let connection = connector.connect()?;
    if let Some(warning) = connection.last_warning() {
        log::warn!("the database warns: {}", errors::clean(&warning.to_string()));
    }
    connection.set_call_timeout(Some(CALL_TIMEOUT))?;
    connection.set_module(MODULE)?;
    connection.set_action(role)?;
    for statement in set_up(&database.schema) {
        bind::run_once(&connection, &statement)?;
    }
    if database.version.lock().is_none() {
        let (version, banner) = connection.server_version()?;
        *database.version.lock() = Some(format!("{version} ({})", errors::clean(&banner)));
    }
    Ok(connection)
}

/// What every session is told first. Texts sort by their bytes, as they do here, so that rows are locked in one order
/// everywhere (law 11).
pub(super) fn set_up(schema: &str) -> Vec<String> {
    let mut statements = vec![
        "ALTER SESSION SET TIME_ZONE = '+00:00'".to_string(),
        "ALTER SESSION SET NLS_SORT = BINARY".to_string(),
        "ALTER SESSION SET NLS_COMP = BINARY".to_string(),
        "ALTER SESSION DISABLE PARALLEL DML".to_string(),
    ];
    if !schema.is_empty() {
        statements.push(format!("ALTER SESSION SET CURRENT_SCHEMA = {schema}"));
    }
    statements
}

/// Whether a text may stand in a statement as the name of a schema: quoting it would be a door of its own.
pub fn is_schema_name(text: &str) -> bool {
    let mut letters = text.bytes();
    text.len() <= 128
        && letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'#'))
}

/// The clock of the database, in UTC.
pub(super) fn database_time(connection: &Connection) -> oracle::Result<Timestamp> {
    let found = bind::query(connection, &text(statement!("database_time"), &[]), &[], 1, |row| {
        bind::time(row, "now_utc")
    })?;
    found.into_iter().next().ok_or_else(|| {
        oracle::Error::new(oracle::ErrorKind::Other, "no time came back".to_string())
    })
}

/// What of the database would break the service, in words that say what to do.
pub(super) fn unfit(connection: &Connection) -> oracle::Result<Vec<String>> {
    let sets = bind::query(connection, &text(statement!("character_set"), &[]), &[], 1, |row| {
        bind::text(row, "value")
    })?;
    let mut problems = Vec::new();
    if let Some(set) = sets.into_iter().next()
        && set != CHARACTER_SET
    {
        problems.push(format!(
            "the character set of the database is {set}, which loses characters; this service needs {CHARACTER_SET}"
        ));
    }
    Ok(problems)
}

/// What kind of session an alias has led to, where that would break the service: in a descriptor it can be read
/// ([`super::address::unfit`]), behind an alias only the session itself knows.
pub(super) fn misfits(connection: &Connection) -> oracle::Result<Vec<String>> {
    let asked = bind::call_for_rows(
        connection,
        &text(statement!("session_kind"), &[]),
        &[Bind::Cursor],
        |row| Ok((bind::text(row, "SERVER")?, bind::text(row, "FAILOVER_TYPE")?)),
    );
    match asked {
        Ok(kinds) => {
            Ok(kinds.iter().flat_map(|(server, failover)| misfits_of(server, failover)).collect())
        }
        // An older schema, or the owner has no right to look.
        Err(error) if errors::class_of(&error) == Class::Missing => {
            let words = errors::clean(&error.to_string());
            log::warn!(
                "nobody can say what kind of sessions these are, see 000_grants_as_dba.sql: {words}"
            );
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn misfits_of(server: &str, failover: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if server == "POOLED" {
        problems.push(
            "the sessions come from a pool of the database (SERVER=POOLED), which others have used before; name a \
             dedicated server in tnsnames.ora"
                .to_string(),
        );
    }
    if !matches!(failover, "NONE" | "") {
        problems.push(format!(
            "the sessions are failed over behind our back (failover type {failover}), without what they were told at \
             their start; remove FAILOVER_MODE from tnsnames.ora and failover_type from the database service"
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_told_utc_binary_order_and_its_schema() {
        let statements = set_up("SENTINEL");
        assert_eq!(statements[0], "ALTER SESSION SET TIME_ZONE = '+00:00'");
        assert!(statements.iter().any(|text| text.contains("DISABLE PARALLEL DML")));
        assert!(statements.iter().any(|text| text.ends_with("CURRENT_SCHEMA = SENTINEL")));
        assert_eq!(set_up("").len(), 4);
    }

    #[test]
    fn what_an_alias_hides_is_named() {
        assert_eq!(misfits_of("DEDICATED", "NONE"), [""; 0]);
        assert_eq!(misfits_of("SHARED", ""), [""; 0]);
        assert!(misfits_of("POOLED", "NONE")[0].contains("SERVER=POOLED"));
        for failover in ["SESSION", "SELECT", "TRANSACTION", "AUTO"] {
            assert!(misfits_of("DEDICATED", failover)[0].contains(failover));
        }
        assert_eq!(misfits_of("POOLED", "SELECT").len(), 2);
    }

    #[test]
    fn only_a_plain_name_is_a_schema() {
        for good in ["SENTINEL", "sentinel_1", "A$B#C"] {
            assert!(is_schema_name(good), "{good}");
        }
        for bad in ["", "1A", "A B", "A;DROP", "A\"B", "ä", &"x".repeat(129)] {
            assert!(!is_schema_name(bad), "{bad}");
        }
    }

    #[test]
    fn pauses_grow_are_spread_and_start_long_after_a_refused_password() {
        let mut backoff = Backoff::new();
        let soon: Vec<Duration> = (0..12).map(|_| backoff.pause(Class::CannotConnect)).collect();
        assert!(soon[0] <= Duration::from_millis(100));
        assert!(soon.iter().all(|pause| *pause <= Duration::from_secs(5)));
        assert!(soon[11] >= Duration::from_millis(2500));
        let mut refused = Backoff::new();
        for _ in 0..5 {
            let pause = refused.pause(Class::Authentication);
            assert!(pause >= Duration::from_secs(60) && pause <= Duration::from_secs(600));
        }
        let mut spread = Backoff::new();
        spread.failures = 10;
        let pauses: Vec<Duration> = (0..9).map(|_| spread.pause(Class::CannotConnect)).collect();
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
    }
}
