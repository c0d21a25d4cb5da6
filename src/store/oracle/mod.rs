//! The Oracle store: one schema and one queue, shared by any number of instances. This module opens it, names what in
//! the database would break it, and hands out the sessions.
//!
//! * [`address`], [`database`], [`connecting`] and [`session`] are the way in: one connection for each thread, opened
//!   again by its owner, with the pauses of [`backoff`]; [`misfits`] says what of a database would break the service.
//! * [`errors`] says what an error means; [`bind`] is the only way for a value to reach the database; [`facts`] is what
//!   the database says of itself.
//! * [`intake`], [`listener`] with [`projection`], [`logs`], [`keeper`], [`reader`] and [`tail`] are the roles of the contract.
//! * [`script`] and [`migrate`] bring the schema up to this version.
//!
//! The queue is the durable log: what is in it is acknowledged. An event's effects and its removal from the queue are
//! one transaction, so nothing is lost or doubled wherever a session ends.

pub mod address;
mod backoff;
mod bind;
mod connecting;
mod database;
mod deserted;
pub mod doctor;
pub mod errors;
mod facts;
mod health;
mod intake;
mod keeper;
mod listener;
mod logs;
mod message;
pub mod migrate;
mod misfits;
mod overdue;
mod projection;
mod reader;
pub mod script;
mod session;
mod settled;
mod sql;
mod state;
mod tail;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use self::address::Address;
use self::connecting::{Attempt, Connecting};
use self::database::Database;
use self::health::Health;
use self::session::Session;
use crate::domain::process::Policy;
use crate::domain::time::Timestamp;
use crate::store::{
    Condition, IntakeSession, KeeperSession, ListenerSession, LogSession, Reader, Result, Store,
    StoreError, TailSession, WriteState,
};

pub use self::database::{Care, SessionState, is_schema_name};

/// Reads our own clock.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What of the configuration the Oracle store goes by.
#[derive(Clone)]
pub struct Settings {
    pub address: Address,
    /// The schema that holds our tables; empty: that of the user.
    pub schema: String,
    /// The queue that the configuration names, without its schema; empty: whichever there is.
    pub queue: String,
    pub care: Care,
    pub policy: Policy,
    /// How far back an event's own time may lie.
    pub retention: Duration,
    /// How long keys and event ids are remembered.
    pub idempotency: Duration,
    pub clock: Clock,
    /// Whether the clock of the database is the store's clock (law 4). False: ours is, for tests that move it by hand.
    pub compares_clocks: bool,
}

impl Settings {
    /// The defaults of the contract.
    pub fn new(address: Address) -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            address,
            schema: String::new(),
            queue: String::new(),
            care: Care::default(),
            policy: Policy { timeout: HOUR, heartbeat_interval: Duration::from_secs(30) },
            retention: 30 * 24 * HOUR,
            idempotency: 168 * HOUR,
            clock: Arc::new(|| {
                Timestamp::default()
                    .plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
            }),
            compares_clocks: true,
        }
    }
}

/// How long the first session is waited for before the service says that it waits.
const START_WAIT: Duration = Duration::from_secs(15);

/// The Oracle store, open.
pub struct Oracle {
    database: Arc<Database>,
    health: Arc<Health>,
    settings: Settings,
    client: String,
    listeners: Mutex<usize>,
    /// What is wrong with the kind of sessions that the address leads to.
    misfits: Vec<String>,
}

impl Oracle {
    /// Loads the client library, opens a first session and looks whether the database fits.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] when somebody must mend something first: no client library, a wrong address, a
    /// refused password, a character set that loses characters, a schema that is not there.
    /// [`StoreError::Disconnected`] when the database may come back by itself.
    pub fn open(settings: Settings) -> Result<Self> {
        const CALL: &str = "open the store";
        let client = database::load_client(&settings.address)?;
        let database = Arc::new(Database::new(
            settings.address.clone(),
            settings.care.clone(),
            settings.schema.clone(),
        ));
        let health = Health::new(Arc::clone(&settings.clock));
        let health = Arc::new(health.comparing_clocks(settings.compares_clocks));
        let failed = |error: oracle::Error| {
            let told = errors::classify(CALL, &error);
            if errors::class_of(&error).needs_mending() { errors::unreachable(told) } else { told }
        };
        let connection =
            match Connecting::start(&database, "start").wait(Instant::now() + START_WAIT) {
                Attempt::Open(connection) => *connection,
                Attempt::Failed(error) => return Err(failed(error)),
                Attempt::UnderWay(_) => {
                    let source = "the database has not answered yet".into();
                    return Err(StoreError::Disconnected { call: CALL, source });
                }
            };
        let unfit = misfits::of_database(&connection).map_err(failed)?;
        if let Some(problem) = unfit.into_iter().next() {
            return Err(StoreError::Unreachable { call: CALL, source: problem.into() });
        }
        let misfits = misfits::of_session(&connection).map_err(failed)?;
        for problem in &misfits {
            log::error!(database:% = settings.address.display(); "{problem}");
        }
        facts::compare_clocks(&connection, &health).map_err(failed)?;
        if let Some(queue) = facts::main_queue(&connection).map_err(failed)? {
            if !is_queue(&settings.queue, &queue.name) {
                let source = format!(
                    "the schema works with the queue {}, and SENTINEL_QUEUE_NAME says {}; set it to the former",
                    queue.name, settings.queue
                );
                return Err(StoreError::Unreachable { call: CALL, source: source.into() });
            }
            health.note_queue(queue);
        }
        // A connection that is closed here and now tells what its end is.
        if let Err(error) = connection.close() {
            log::debug!("closing the first session: {error}");
        }
        log::info!(
            database:% = settings.address.display(), client = client.as_str();
            "the database is {}", database.version.lock().as_deref().unwrap_or("of unknown version")
        );
        Ok(Self { database, health, settings, client, listeners: Mutex::new(0), misfits })
    }

    fn session(&self, role: &'static str) -> Session {
        Session::new(Arc::clone(&self.database), role)
    }
}

impl Store for Oracle {
    fn intake(&self) -> Result<Box<dyn IntakeSession>> {
        Ok(Box::new(intake::Intake::new(
            self.session("intake"),
            Arc::clone(&self.health),
            self.settings.idempotency,
        )))
    }

    fn listener(&self) -> Result<Box<dyn ListenerSession>> {
        let number = {
            let mut listeners = self.listeners.lock();
            *listeners += 1;
            *listeners
        };
        Ok(Box::new(listener::Listener::new(
            self.session("listener"),
            Arc::clone(&self.health),
            self.settings.retention,
            format!("{} {number}", host()),
        )))
    }

    fn logs(&self) -> Result<Box<dyn LogSession>> {
        Ok(Box::new(logs::Writer::new(self.session("logs"), Arc::clone(&self.health))))
    }

    fn keeper(&self) -> Result<Box<dyn KeeperSession>> {
        Ok(Box::new(keeper::Keeper::new(
            self.session("keeper"),
            Arc::clone(&self.health),
            self.settings.idempotency,
        )))
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(reader::Reader::new(
            self.session("reader"),
            Arc::clone(&self.health),
            self.settings.policy,
        )))
    }

    fn tail(&self) -> Result<Option<Box<dyn TailSession>>> {
        Ok(Some(Box::new(tail::Tail::new(self.session("tail"), Arc::clone(&self.health)))))
    }

    fn now(&self) -> Timestamp {
        self.health.now()
    }

    fn write_state(&self) -> WriteState {
        self.health.write_state()
    }

    fn backlog(&self) -> (u64, Option<Timestamp>) {
        self.health.backlog()
    }

    fn answers_at_once(&self) -> bool {
        false
    }

    fn reconnects(&self) -> u64 {
        self.database.reconnects.load(Ordering::Relaxed)
    }

    fn condition(&self) -> Vec<Condition> {
        let version = self.database.version.lock().clone();
        let version = version.unwrap_or_else(|| "version unknown".to_string());
        let ahead_ms = self.health.offset_us() / 1000;
        let mut lines = vec![Condition {
            name: "database".to_string(),
            fine: true,
            vital: false,
            detail: format!(
                "{}, {version}, client {}, its clock {ahead_ms} ms ahead of ours",
                self.settings.address.display(),
                self.client
            ),
        }];
        lines.extend(self.misfits.iter().map(|problem| Condition {
            name: "address".to_string(),
            fine: false,
            vital: false,
            detail: problem.clone(),
        }));
        lines.extend(self.health.queue().map(queue_condition));
        lines.push(dequeue_condition(self.health.dequeued_at().map(|at| at.elapsed())));
        lines.extend(self.database.sessions.lock().iter().filter_map(session_condition));
        lines
    }
}

/// A listener that has not come back from the queue for so long hangs, or has no session.
const SILENT_AFTER: Duration = Duration::from_secs(60);

fn queue_condition(queue: health::QueueState) -> Condition {
    let open = |open: bool| if open { "open" } else { "STOPPED" };
    Condition {
        name: "queue".to_string(),
        fine: queue.takes && queue.gives && queue.expired == 0,
        vital: false,
        detail: format!(
            "{}: enqueue {}, dequeue {}, {} ready, {} waiting, {} expired",
            queue.name,
            open(queue.takes),
            open(queue.gives),
            queue.ready,
            queue.waiting,
            queue.expired
        ),
    }
}

fn dequeue_condition(age: Option<Duration>) -> Condition {
    Condition {
        name: "queue.dequeue".to_string(),
        fine: age.is_some_and(|age| age < SILENT_AFTER),
        vital: false,
        detail: match age {
            Some(age) => format!("the last one {} s ago", age.as_secs()),
            None => "none yet".to_string(),
        },
    }
}

/// How long a fault is told after it has passed.
const FAULT_SHOWN: Duration = Duration::from_secs(60);

/// A session that was never needed has nothing to say.
fn session_condition(state: &SessionState) -> Option<Condition> {
    let name = format!("session.{}", state.role);
    if let Some(stuck) = &state.stuck {
        // Without these two nothing is taken in, or nothing is applied.
        let vital = ["listener-", "intake-"].iter().any(|role| state.role.starts_with(role));
        let detail = format!("it gets nowhere, and nobody knows why: {stuck}");
        return Some(Condition { name, fine: false, vital, detail });
    }
    let fresh = state.fault.as_ref().filter(|(_, at)| at.elapsed() < FAULT_SHOWN);
    let detail = match (fresh, state.open_since) {
        (Some((fault, _)), _) => fault.clone(),
        (None, Some(since)) => format!("open for {} s", since.elapsed().as_secs()),
        (None, None) => return None,
    };
    Some(Condition { name, fine: fresh.is_none(), vital: false, detail })
}

/// Whether the queue of the schema is the one that is wanted.
fn is_queue(wanted: &str, found: &str) -> bool {
    let name = found.rsplit('.').next().unwrap_or(found).trim_matches('"');
    wanted.is_empty() || name.eq_ignore_ascii_case(wanted)
}

/// Where this instance runs: the name of its probes, of which there must not be another one after each start.
fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::oracle::address::Given;

    /// There is no client library where the tests run without one, and that must be an answer and no crash.
    #[test]
    fn a_missing_client_library_is_one_clear_line() {
        let folder = tempfile::tempdir().unwrap();
        let given = Given {
            target: Some("db.invalid:1521/none".into()),
            client_lib_dir: Some(folder.path().to_path_buf()),
            ..Given::default()
        };
        let address = Address::from_settings(&given).unwrap();
        let error = database::load_client(&address).unwrap_err();
        let StoreError::Unreachable { source, .. } = &error else { panic!("{error:?}") };
        let words = source.to_string();
        assert!(
            words.contains("Instant Client") && words.contains("ORACLE_CLIENT_LIB_DIR"),
            "{words}"
        );
        assert!(!words.contains('\n'), "{words}");
    }

    #[test]
    fn a_queue_of_another_name_is_not_ours() {
        assert!(is_queue("SENTINEL_QUEUE", "SENTINEL.SENTINEL_QUEUE"));
        assert!(is_queue("", "ANY"));
        assert!(!is_queue("OTHER", "SENTINEL.SENTINEL_QUEUE"));
    }

    #[test]
    fn ready_tells_a_stopped_queue_a_silent_listener_and_a_session_at_fault() {
        let queue = health::QueueState {
            name: "Q".into(),
            takes: true,
            gives: false,
            ready: 3,
            waiting: 0,
            expired: 0,
            oldest: None,
        };
        let line = queue_condition(queue.clone());
        assert!(!line.fine && line.detail.contains("dequeue STOPPED"), "{}", line.detail);
        assert!(queue_condition(health::QueueState { gives: true, ..queue }).fine);
        assert!(dequeue_condition(Some(Duration::from_secs(2))).fine);
        assert!(!dequeue_condition(Some(SILENT_AFTER)).fine && !dequeue_condition(None).fine);
        let state = |fault: Option<&str>| SessionState {
            role: "reader-0".into(),
            open_since: None,
            fault: fault.map(|words| (words.to_string(), Instant::now())),
            stuck: None,
        };
        assert_eq!(session_condition(&state(None)), None);
        let line = session_condition(&state(Some("ORA-03113"))).unwrap();
        assert!(!line.fine && line.name == "session.reader-0" && line.detail == "ORA-03113");
        let stuck = |role: &str| {
            let (role, stuck) = (role.to_string(), Some("ORA-00600".to_string()));
            session_condition(&SessionState { role, stuck, ..state(None) }).unwrap()
        };
        for (role, vital) in [("listener-1", true), ("intake-0", true), ("keeper-1", false)] {
            let line = stuck(role);
            assert!(!line.fine && line.vital == vital, "{role}");
            assert!(line.detail.ends_with("ORA-00600"), "{}", line.detail);
        }
    }
}
