//! The stores that the contract is held against, and where they live. This module opens each of them empty, and says in
//! what one differs from the others by necessity.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use sentinel::store::Store;
use sentinel::store::oracle::address::{Address, Given, Secret};
use sentinel::store::oracle::{self, Oracle};
use sentinel::store::sqlite::{Settings, Sqlite};
use tempfile::TempDir;

use super::{POLICY, WINDOW};
use crate::harness::HandClock;
use crate::oracle_live;
use crate::oracle_migrate;
use crate::oracle_standin::Standin;

/// The backends that every clause is held against.
pub(super) const BACKENDS: [Backend; 3] = [
    Backend { name: "SQLite", differs: &Differs::IN_NOTHING, place: a_folder, open: open_sqlite },
    Backend {
        name: "Oracle (stand-in)",
        differs: &Differs::OF_ORACLE,
        place: a_service,
        open: open_oracle,
    },
    Backend {
        name: "Oracle (server)",
        differs: &Differs::OF_A_SERVER,
        place: a_server,
        open: open_server,
    },
];

/// A kind of store.
pub(super) struct Backend {
    pub(super) name: &'static str,
    pub(super) differs: &'static Differs,
    /// Where an empty store can be made. None: not on this machine, and that was said.
    pub(super) place: fn() -> Option<Place>,
    /// Opens the store of a place, or opens it again.
    pub(super) open: fn(&Place, &HandClock) -> Box<dyn Store>,
}

/// In what a store differs from one that alone holds its files, and has to.
pub(super) struct Differs {
    /// A status shows only the start of a process before a listener has applied the rest: any instance may have
    /// accepted it, and none holds what all of them accepted.
    pub(super) applies_late: bool,
    /// A question sees what is committed when it is asked: no session can hold one moment open for a whole turn, since
    /// the undo of a shared database is not ours to keep.
    pub(super) has_no_turns: bool,
    /// The backlog is that of the last look, because counting messages of a queue is not free.
    pub(super) looks_now_and_then: bool,
    /// What was claimed and not settled comes back after so long: the queue's own retry delay.
    pub(super) gives_back_after: Duration,
    /// A version counts the commits that changed a process, because no event has one place among those of all
    /// instances.
    pub(super) versions_are_commits: bool,
    /// The queue gives urgent kinds first, so the order in which events are applied, and with it their positions, hangs
    /// on what waits together.
    pub(super) gives_by_priority: bool,
    /// There is no log of its own to trim: the queue keeps nothing that was applied.
    pub(super) has_no_log: bool,
    /// A sweep takes portions of its own size, since each searches anew. 0: of the size that was asked for.
    pub(super) sweeps_rows: usize,
    /// New lines are shown after so long: until then one with a lower number may still be on its way to a commit.
    pub(super) lines_settle_after: Duration,
    /// Several instances work on it at once, and each tails what the others commit.
    pub(super) is_shared: bool,
    /// There is one schema, so no clause has two of them side by side.
    pub(super) is_the_only_one: bool,
    /// Its own clock cannot be moved: what waits in its queue is given back, and told how old it is, in real time.
    pub(super) has_its_own_time: bool,
}

impl Differs {
    const IN_NOTHING: Self = Self {
        applies_late: false,
        has_no_turns: false,
        looks_now_and_then: false,
        gives_back_after: Duration::ZERO,
        versions_are_commits: false,
        gives_by_priority: false,
        has_no_log: false,
        sweeps_rows: 0,
        lines_settle_after: Duration::ZERO,
        is_shared: false,
        is_the_only_one: false,
        has_its_own_time: false,
    };

    const OF_ORACLE: Self = Self {
        applies_late: true,
        has_no_turns: true,
        looks_now_and_then: true,
        gives_back_after: Duration::from_secs(10),
        versions_are_commits: true,
        gives_by_priority: true,
        has_no_log: true,
        sweeps_rows: 5000,
        lines_settle_after: Duration::from_secs(3),
        is_shared: true,
        is_the_only_one: false,
        has_its_own_time: false,
    };

    const OF_A_SERVER: Self =
        Self { is_the_only_one: true, has_its_own_time: true, ..Self::OF_ORACLE };
}

/// Where one store lives.
pub(super) enum Place {
    Folder(TempDir),
    Service(Arc<Standin>),
    /// The schema of a server, emptied, and nobody else in it.
    Server(oracle_live::Empty),
}

fn a_folder() -> Option<Place> {
    Some(Place::Folder(tempfile::tempdir().expect("a folder")))
}

fn open_sqlite(place: &Place, clock: &HandClock) -> Box<dyn Store> {
    let Place::Folder(folder) = place else { panic!("it lives in a folder") };
    let settings = Settings {
        policy: POLICY,
        idempotency: WINDOW,
        min_free_bytes: 1024 * 1024,
        // Small tables, so that every listing goes over several.
        event_table_rows: 10,
        clock: clock.as_clock(),
        ..Settings::new(folder.path().join("data"))
    };
    Box::new(Sqlite::open(settings).expect("the store opens"))
}

/// A service with the schema in it and nothing else.
fn a_service() -> Option<Place> {
    if std::env::var_os("SENTINEL_TEST_ORACLE_DSN").is_some() {
        let why = "SENTINEL_TEST_ORACLE_DSN is set, and a process loads one client library: the tests of oracle_live \
                   run on that server, and this needs a run without it";
        let _ = writeln!(std::io::stderr(), "SKIPPED: the store contract on the stand-in: {why}");
        return None;
    }
    oracle_migrate::migrated().map(|standin| Place::Service(Arc::new(standin)))
}

fn address(standin: &Standin) -> Address {
    let given = Given {
        target: Some(standin.connect_string.clone()),
        user: Some("SENTINEL".into()),
        password: Some(Secret::new("any")),
        client_lib_dir: Some(standin.library.clone()),
        ..Given::default()
    };
    Address::from_settings(&given).expect("an address")
}

fn open_oracle(place: &Place, clock: &HandClock) -> Box<dyn Store> {
    let Place::Service(standin) = place else { panic!("it is a service") };
    let (hand, held) = (clock.clone(), Arc::clone(standin));
    let settings = oracle::Settings {
        policy: POLICY,
        idempotency: WINDOW,
        // The database's clock is the same hand's, else the store would find out how far the two are apart.
        clock: Arc::new(move || {
            let now = hand.now();
            held.hold_clock(now.micros());
            now
        }),
        ..oracle::Settings::new(address(standin))
    };
    Box::new(Oracle::open(settings).expect("the store opens"))
}

/// The server that is named, with an empty schema.
fn a_server() -> Option<Place> {
    oracle_live::empty().map(Place::Server)
}

fn open_server(place: &Place, clock: &HandClock) -> Box<dyn Store> {
    let Place::Server(empty) = place else { panic!("it is a server") };
    let settings = oracle::Settings {
        policy: POLICY,
        idempotency: WINDOW,
        clock: clock.as_clock(),
        // Its clock cannot be moved by hand, and ours is.
        compares_clocks: false,
        ..empty.settings()
    };
    Box::new(Oracle::open(settings).expect("the store opens"))
}
