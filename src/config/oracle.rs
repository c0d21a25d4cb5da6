//! Which store it is, and the settings of an Oracle database. This module reads `ORACLE_*`, `POOL_*` and
//! `SENTINEL_SESSION_*`, and holds them against the number of threads that need a session.

use std::path::PathBuf;
use std::time::Duration;

use super::problems::{Problems, Warning};
use super::raw::{Overrides, RawConfig, Surroundings};
use super::reader::Reader;
use super::variables::{self, NONE, ORACLE_ONLY};
use crate::store::oracle::address::{Address, Given, PORT, SCHEME, Secret};
use crate::store::oracle::{Care, is_schema_name};

const DAY_S: u64 = 24 * 3600;
/// The schema of the scripts, where the queue's name does not say another one.
const SCHEMA: &str = "SENTINEL";
/// Threads with a session of their own beside workers, listeners and log writers: intake, keeper, reaper.
const OTHER_SESSIONS: usize = 3;

/// Which store the service works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Database {
    Embedded,
    Oracle(Box<OracleDatabase>),
}

/// An Oracle database and how its sessions are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OracleDatabase {
    pub address: Address,
    /// The schema that holds our tables.
    pub schema: String,
    /// The queue, without its schema.
    pub queue: String,
    pub ping_after: Duration,
    pub lifetime_max: Duration,
    pub connect_wait: Duration,
    pub sessions_max: usize,
}

impl OracleDatabase {
    /// The part of the environment that names a database, for commands that need nothing else. None: no Oracle
    /// database is named.
    ///
    /// # Errors
    /// [`Problems`] names every problem. The exit code for it is 78.
    pub fn from_environment(overrides: Overrides) -> Result<Option<Self>, Problems> {
        Surroundings::of_this_process(overrides, Self::load)
    }

    /// The same, from what the user typed.
    ///
    /// # Errors
    /// [`Problems`] names every problem.
    pub fn load(surroundings: &Surroundings<'_>) -> Result<Option<Self>, Problems> {
        let wanted = |name: &str| name == "SENTINEL_DATABASE" || ORACLE_ONLY.contains(&name);
        let mut problems = Problems::default();
        let raw = RawConfig::gather(surroundings, wanted, &mut problems, &mut Vec::new());
        let mut reader = Reader::new(&raw, &mut problems);
        let database = database(&mut reader);
        match database {
            _ if !problems.0.is_empty() => Err(problems),
            Database::Oracle(database) => Ok(Some(*database)),
            Database::Embedded => Ok(None),
        }
    }

    /// How its sessions are kept.
    pub fn care(&self) -> Care {
        Care {
            ping_after: self.ping_after,
            lifetime_max: self.lifetime_max,
            connect_wait: self.connect_wait,
        }
    }
}

/// Whether the settings name an Oracle database.
pub(super) fn is_named(reader: &Reader<'_>) -> bool {
    match reader.given("SENTINEL_DATABASE") {
        Some(given) => given.value.starts_with(SCHEME),
        None => reader.is_given("ORACLE_TNS_NAME") || reader.is_given("ORACLE_HOST"),
    }
}

/// Reads every setting of the database, also where the store is another one: then only their form counts.
pub(super) fn database(reader: &mut Reader<'_>) -> Database {
    let target = reader
        .given("SENTINEL_DATABASE")
        .and_then(|given| given.value.strip_prefix(SCHEME))
        .map(String::from);
    let port = reader.port("ORACLE_PORT");
    let given = Given {
        target,
        tns_name: reader.text("ORACLE_TNS_NAME", NONE),
        host: reader.text("ORACLE_HOST", NONE),
        port: reader.is_given("ORACLE_PORT").then_some(if port == 0 { PORT } else { port }),
        service: reader.text("ORACLE_SERVICE", NONE),
        server_dn: reader.text("ORACLE_SERVER_DN", NONE),
        wallet: reader.text("ORACLE_WALLET_LOCATION", NONE).map(PathBuf::from),
        user: reader.text("ORACLE_USERNAME", NONE),
        password: reader.text("ORACLE_PASSWORD", NONE).map(Secret::new),
        client_lib_dir: reader.text("ORACLE_CLIENT_LIB_DIR", "loader path").map(PathBuf::from),
    };
    let name = reader.text_or_default("SENTINEL_QUEUE_NAME");
    let (schema, queue) = name.split_once('.').unwrap_or((SCHEMA, &name));
    if !is_schema_name(schema) || !is_schema_name(queue) {
        reader.problem(
            "SENTINEL_QUEUE_NAME",
            format!("{name:?} is no name of a queue, such as SENTINEL.SENTINEL_QUEUE"),
        );
    }
    let sessions_min = reader.number("POOL_MIN_CONNECTIONS", 0..=1_000);
    let sessions_max = reader.number("POOL_MAX_CONNECTIONS", 1..=1_000);
    if sessions_min > sessions_max {
        reader.problems.add(
            "POOL_MIN_CONNECTIONS and POOL_MAX_CONNECTIONS",
            format!(
                "the least, {sessions_min}, is above the most, {sessions_max}; change one of them"
            ),
        );
    }
    let ping_after = reader.seconds("SENTINEL_SESSION_PING_SEC", 1, 1..=DAY_S);
    let lifetime_max = reader.seconds("SENTINEL_SESSION_MAX_LIFETIME_SEC", 1, 60..=DAY_S);
    let connect_wait =
        Duration::from_millis(reader.number("SENTINEL_SESSION_CONNECT_WAIT_MS", 100..=600_000));
    if !is_named(reader) {
        return Database::Embedded;
    }
    match Address::from_settings(&given) {
        Ok(address) => Database::Oracle(Box::new(OracleDatabase {
            address,
            schema: schema.to_ascii_uppercase(),
            queue: queue.to_ascii_uppercase(),
            ping_after,
            lifetime_max,
            connect_wait,
            sessions_max: usize::try_from(sessions_max).unwrap_or(usize::MAX),
        })),
        Err(found) => {
            for problem in found {
                match variables::find(problem.names) {
                    Some(variable) => reader.problem(variable.name, problem.what),
                    None => reader.problems.add(problem.names, problem.what),
                }
            }
            Database::Embedded
        }
    }
}

/// Says which settings do nothing with the embedded store.
pub(super) fn warn_of_what_does_nothing(reader: &Reader<'_>, warnings: &mut Vec<Warning>) {
    for name in ORACLE_ONLY.iter().filter(|name| reader.is_given(name)) {
        warnings.push(Warning {
            name: (*name).to_string(),
            what: "does nothing with the embedded store".to_string(),
        });
    }
}

/// Every thread that talks to the database has a session of its own.
pub(super) fn check_sessions(
    reader: &mut Reader<'_>,
    database: &OracleDatabase,
    workers: usize,
    listeners: usize,
    log_writers: usize,
) {
    let needed = workers + listeners + log_writers + OTHER_SESSIONS;
    if database.sessions_max < needed {
        reader.problems.add(
            "POOL_MAX_CONNECTIONS",
            format!(
                "{} is below the {needed} threads that need a session ({workers} by SENTINEL_WORKER_THREADS, {listeners} by \
                 SENTINEL_LISTENER_THREADS, {log_writers} by SENTINEL_LOG_WRITER_THREADS, {OTHER_SESSIONS} others); raise it, \
                 or lower one of them",
                database.sessions_max
            ),
        );
    }
}
