//! The database, as all sessions of a store know it. This module loads the client library, opens connections and tells
//! each what every session must know.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use oracle::{Connection, Connector, InitParams, Version};
use parking_lot::Mutex;

use super::address::{Address, Credentials};
use super::bind;
use super::errors::{self, Class};
use crate::store::Result;

/// What the service calls itself in V$SESSION.
const MODULE: &str = "process-sentinel";
/// Statements kept open for each session: more than any role uses, so none is parsed twice.
const STATEMENTS_MAX: u32 = 60;
/// The longest that one call may take. It must be longer than a dequeue waits, else an empty queue looks like a fault;
/// and it is shorter than a stop may take by default, so that a database which answers no more does not outlast it.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest that a dequeue waits: short, because nothing reliable can wake it for a stop.
pub(super) const DEQUEUE_WAIT_MAX: Duration = Duration::from_secs(2);

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
        errors::unreachable(errors::told(CALL, class, &error.to_string()))
    })
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
    fn only_a_plain_name_is_a_schema() {
        for good in ["SENTINEL", "sentinel_1", "A$B#C"] {
            assert!(is_schema_name(good), "{good}");
        }
        for bad in ["", "1A", "A B", "A;DROP", "A\"B", "ä", &"x".repeat(129)] {
            assert!(!is_schema_name(bad), "{bad}");
        }
    }
}
