//! The embedded store: three `SQLite` files in one folder, each for one kind of writing. This module opens them in the
//! order that keeps the promises, and hands out the sessions.
//!
//! * `log.db` is the durable queue: what is in it is acknowledged ([`log`], [`intake`]).
//! * `events.db` is the projection: everything in it follows from the log ([`projection`], [`reader`]).
//! * `logs.db` holds what processes said ([`logs`]).
//!
//! Between log and projection lies the [`overlay`], in memory. The keeper ([`keeper`]) copies write-ahead logs into
//! their files, trims and archives; [`snapshot`] holds the way back. One instance holds the folder ([`folder`]).

mod backup;
mod connection;
pub mod doctor;
mod folder;
mod idempotency;
mod intake;
mod keeper;
mod log;
pub mod logs;
mod names;
mod numbers;
mod overlay;
mod processes;
mod projection;
mod purge;
mod reader;
mod schema;
mod snapshot;
mod streams;
mod tables;
mod wal;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use self::connection::{classify, open_reader, open_writer};
use self::folder::{Folder, Space};
use self::overlay::Overlay;
use self::tables::Tables;
use self::wal::WalGauge;
use crate::domain::process::Policy;
use crate::domain::time::Timestamp;
use crate::store::{
    IntakeSession, KeeperSession, ListenerSession, LogSession, Reader, Result, Store, StoreError,
    WriteState,
};

pub use self::backup::{Manifest, ManifestFile, backup, check_backup};
pub use self::purge::{Purged, look_for, purge};
pub use self::schema::Migrated;
pub use self::snapshot::Report;

/// Reads the store's clock (law 4).
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What of the configuration the embedded store goes by.
#[derive(Clone)]
pub struct Settings {
    /// Where the files lie.
    pub folder: PathBuf,
    pub policy: Policy,
    /// How long events and finished processes are kept; an event's own time may lie this far back.
    pub retention: Duration,
    /// How long keys and event ids are remembered.
    pub idempotency: Duration,
    /// How long rows of the log are kept, beyond the time a snapshot covers them.
    pub log_keep: Duration,
    pub min_free_bytes: u64,
    /// Rows of one event table. Its indexes should stay in the cache: cost grows with the table, not with the data.
    pub event_table_rows: u64,
    /// How long one event table takes rows, so that retention drops days and not months.
    pub event_table_age: Duration,
    pub clock: Clock,
}

impl Settings {
    /// The defaults of the contract.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            folder: folder.into(),
            policy: Policy { timeout: HOUR, heartbeat_interval: Duration::from_secs(30) },
            retention: 30 * 24 * HOUR,
            idempotency: 168 * HOUR,
            log_keep: 24 * HOUR,
            min_free_bytes: 256 * 1024 * 1024,
            event_table_rows: 200_000,
            event_table_age: 24 * HOUR,
            clock: Arc::new(system_clock),
        }
    }
}

fn system_clock() -> Timestamp {
    Timestamp::default().plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The embedded store, open and locked.
pub struct Sqlite {
    folder: Arc<Folder>,
    overlay: Arc<Overlay>,
    space: Arc<Space>,
    events_wal: Arc<WalGauge>,
    log_wal: Arc<WalGauge>,
    settings: Settings,
    /// Opened with the store, because it takes in what the projection lacks; handed out once.
    intake: Mutex<Option<intake::Intake>>,
}

impl Sqlite {
    /// Locks the folder, mends or makes its files, and takes in what was accepted and not applied before.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when another instance holds the folder, [`StoreError::Corrupt`] when its files are damaged
    /// beyond what a rebuild can mend, or were written by a newer program.
    pub fn open(settings: Settings) -> Result<Self> {
        let folder = Arc::new(Folder::lock(&settings.folder)?);
        let now = (settings.clock)();
        snapshot::mend(&folder, &settings)?;
        let mut events = open_writer(&folder.events_db(), false)?;
        schema::migrate(&mut events, now)?;
        idempotency::migrate(&events)?;
        let position =
            projection::position(&events).map_err(|error| classify("open the store", error))?;
        let mut logs = open_writer(&folder.logs_db(), false)
            .map_err(|error| logs::with_advice(folder.path(), error))?;
        logs::migrate(&mut logs)?;
        let overlay = Arc::new(Overlay::new(position));
        let space = Arc::<Space>::default();
        space.observe(folder.free_bytes()?, settings.min_free_bytes);
        let log_wal = Arc::<WalGauge>::default();
        let intake = intake::Intake::open(
            Arc::clone(&folder),
            Arc::clone(&overlay),
            Arc::clone(&space),
            Arc::clone(&log_wal),
            intake::Settings { retention: settings.retention, idempotency: settings.idempotency },
            now,
        )?;
        snapshot::set_aside_foreign(&folder, intake.log_end())?;
        Ok(Self {
            folder,
            overlay,
            space,
            events_wal: Arc::default(),
            log_wal,
            settings,
            intake: Mutex::new(Some(intake)),
        })
    }

    fn projection(&self) -> Result<projection::Session> {
        let tables = Tables::new(self.settings.event_table_rows, self.settings.event_table_age);
        projection::Session::new(
            Arc::clone(&self.folder),
            open_writer(&self.folder.events_db(), false)?,
            log::LogReader::open(&self.folder)?,
            Some(Arc::clone(&self.overlay)),
            Arc::clone(&self.events_wal),
            tables,
        )
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// An input/output error happened: the next start reads the files through.
    pub fn taint(&self) {
        self.folder.taint();
    }
}

/// Brings the files of a stopped service to the schema of this program. `check` only looks.
///
/// # Errors
/// [`StoreError::Busy`] while a service holds the folder, [`StoreError::Corrupt`] when the schema is not ours.
pub fn migrate(settings: &Settings, check: bool) -> Result<Migrated> {
    if check && !settings.folder.exists() {
        // The lock would make it.
        return Ok(schema::nothing());
    }
    let folder = Folder::lock(&settings.folder)?;
    if check {
        // A reader makes no file: what is not there has version 0.
        if !folder.events_db().exists() {
            return Ok(schema::nothing());
        }
        return schema::check(&open_reader(&folder.events_db())?);
    }
    let mut events = open_writer(&folder.events_db(), false)?;
    let migrated = schema::migrate(&mut events, (settings.clock)())?;
    idempotency::migrate(&events)?;
    logs::migrate(&mut open_writer(&folder.logs_db(), false)?)?;
    Ok(migrated)
}

/// Makes the projection of a stopped service anew, from the newest good snapshot and the log.
///
/// # Errors
/// [`StoreError::Busy`] while a service holds the folder, [`StoreError::Corrupt`] when snapshot and log leave a gap.
pub fn rebuild(settings: &Settings) -> Result<Report> {
    let folder = Arc::new(Folder::lock(&settings.folder)?);
    snapshot::rebuild(&folder, settings)
}

/// Whether files can be made in `folder`: what a start needs first.
pub fn can_write(folder: &Path) -> bool {
    let probe = folder.join(".probe");
    let written = std::fs::write(&probe, b"probe").is_ok();
    // Where it could not be written it is not there, and a leftover does no harm.
    let _ = std::fs::remove_file(&probe);
    written
}

impl Store for Sqlite {
    fn intake(&self) -> Result<Box<dyn IntakeSession>> {
        match self.intake.lock().take() {
            Some(intake) => Ok(Box::new(intake)),
            None => Err(StoreError::Other {
                call: "open intake",
                source: "the embedded store has one intake, and it is in use".into(),
            }),
        }
    }

    fn listener(&self) -> Result<Box<dyn ListenerSession>> {
        Ok(Box::new(self.projection()?))
    }

    fn logs(&self) -> Result<Box<dyn LogSession>> {
        let session = logs::Session::open(self.folder.path())?;
        Ok(Box::new(session.on_clock(Arc::clone(&self.settings.clock))))
    }

    fn keeper(&self) -> Result<Box<dyn KeeperSession>> {
        Ok(Box::new(keeper::Session::open(
            Arc::clone(&self.folder),
            Arc::clone(&self.space),
            Arc::clone(&self.overlay),
            self.settings.clone(),
            Arc::clone(&self.events_wal),
            Arc::clone(&self.log_wal),
        )?))
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(reader::Reader::new(
            open_reader(&self.folder.events_db())?,
            logs::Reader::open(self.folder.path())?,
            Arc::clone(&self.overlay),
            self.settings.policy,
        )))
    }

    fn now(&self) -> Timestamp {
        (self.settings.clock)()
    }

    fn write_state(&self) -> WriteState {
        self.space.state()
    }

    fn backlog(&self) -> (u64, Option<Timestamp>) {
        self.overlay.backlog()
    }

    /// Copies what is left of the write-ahead logs into their files. The next start is quicker for it, and whoever
    /// copies the folder of a stopped service has everything in three files.
    fn rest(&self) -> Result<()> {
        for path in [self.folder.events_db(), self.folder.logs_db(), self.folder.log_db()] {
            open_writer(&path, true)?
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .map_err(|error| classify("put the store to rest", error))?;
        }
        Ok(())
    }
}
