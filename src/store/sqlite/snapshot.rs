//! Copies of the projection, and its way back. This module takes checked snapshots of `events.db` and rebuilds it
//! from a snapshot and the log.
//!
//! What must stay true: a snapshot counts only once it is complete, checked and on the disk, under a name that says
//! which position it covers; and a rebuild that cannot reach everything is refused before anything is touched.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::connection::{classify, open_reader, open_writer, quick_check};
use super::folder::{self, Folder};
use super::log::{LogReader, with_advice};
use super::projection::{self, Session};
use super::tables::Tables;
use super::wal::checkpoint;
use super::{Settings, idempotency, schema};
use crate::domain::time::Timestamp;
use crate::store::{Result, StoreError};

/// The newest, and one more for the case that its disk block goes bad.
const SNAPSHOTS_KEPT: usize = 2;
/// Messages of one transaction of a rebuild, as the listener's largest batch.
const REPLAY_ROWS: usize = 4000;
/// Transactions of a rebuild between two checkpoints, so that the WAL stays small beside the file.
const BATCHES_PER_CHECKPOINT: usize = 8;
/// Up to this size the projection is read through at every start: a second or so. A larger one only after an end
/// that was none; each snapshot checks it besides.
const CHECK_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Names the call and the file of an input/output error, for `map_err`.
pub(super) fn io_error(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |error| {
        let source = format!("{path}: {error}").into();
        match error.kind() {
            // The next attempt may find room again: no reason to stop.
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::NoSpace { call, why: "the disk is full", source }
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                StoreError::NoSpace { call, why: "the folder cannot be written", source }
            }
            _ => StoreError::Other { call, source },
        }
    }
}

/// Waits until a file, or the names in a folder, are on the disk.
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error("sync", path))
}

/// Removes a file and what `SQLite` keeps beside it.
fn remove(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = beside(path, suffix);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &path)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Copies a database that is in use into one file, whole, checked and on the disk.
pub(super) fn copy(from: &Connection, to: &Path) -> Result<()> {
    const CALL: &str = "copy database";
    let fail = |error| classify(CALL, error);
    remove(to)?;
    folder::make(to).map_err(io_error(CALL, to))?;
    let mut copy = Connection::open(to).map_err(fail)?;
    {
        let backup = Backup::new(from, &mut copy).map_err(fail)?;
        // In one step: between two steps the listener writes, and then the copy would begin anew, for ever.
        match backup.step(-1).map_err(fail)? {
            StepResult::Done => {}
            _ => {
                return Err(StoreError::Busy {
                    call: CALL,
                    source: "another writer holds it".into(),
                });
            }
        }
    }
    // One file without a WAL, whatever the original is.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(fail)?;
    if let Some(problem) = quick_check(&copy)? {
        return Err(StoreError::Corrupt {
            what: format!("{} is damaged: {problem}", to.display()),
        });
    }
    copy.close().map_err(|(_, error)| fail(error))?;
    sync(to)
}

/// Which position the projection in a file has reached.
pub(super) fn position_of(path: &Path) -> Result<i64> {
    let connection = open_reader(path)?;
    projection::position(&connection).map_err(|error| classify("read position", error))
}

/// The snapshots there are, the newest first.
fn list(folder: &Folder) -> Result<Vec<(i64, PathBuf)>> {
    let place = folder.snapshots();
    let entries = match fs::read_dir(&place) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error("list snapshots", &place)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list snapshots", &place))?;
        let name = entry.file_name();
        let position = name
            .to_str()
            .and_then(|name| name.strip_prefix("events-")?.strip_suffix(".db")?.parse().ok());
        if let Some(position) = position {
            found.push((position, entry.path()));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// Which position the newest snapshot covers.
pub(super) fn newest_position(folder: &Folder) -> Result<Option<i64>> {
    Ok(list(folder)?.first().map(|(position, _)| *position))
}

/// Whether a snapshot fits on the disk and leaves `reserve` bytes: it must not be what fills it.
pub(super) fn has_room(folder: &Folder, reserve: u64) -> Result<bool> {
    let path = folder.events_db();
    let size = fs::metadata(&path).map_err(io_error("measure", &path))?.len();
    let wal = fs::metadata(beside(&path, "-wal")).map_or(0, |file| file.len());
    Ok(folder.free_bytes()? > size.saturating_add(wal).saturating_add(reserve))
}

/// Takes a snapshot and returns the position that it covers.
pub(super) fn take(folder: &Folder, events: &Connection) -> Result<i64> {
    let place = folder.snapshots();
    fs::create_dir_all(&place).map_err(io_error("make snapshots", &place))?;
    let unfinished = place.join("events.db.tmp");
    copy(events, &unfinished)?;
    let position = position_of(&unfinished)?;
    let path = place.join(format!("events-{position}.db"));
    fs::rename(&unfinished, &path).map_err(io_error("take snapshot", &path))?;
    sync(&place)?;
    for (_, old) in list(folder)?.into_iter().skip(SNAPSHOTS_KEPT) {
        remove(&old)?;
    }
    log::info!(position; "snapshot of events.db taken");
    Ok(position)
}

/// Takes a snapshot and removes all others: they hold what the new one must not bring back.
pub(super) fn replace(folder: &Folder, events: &Connection) -> Result<()> {
    let position = take(folder, events)?;
    for (other, path) in list(folder)? {
        if other != position {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Moves snapshots out of the way that lie ahead of a log that ends at `log_end`: an older store was put into the folder
/// beside them, so they tell another history. Once the log has passed their positions nobody could tell any more.
pub(super) fn set_aside_foreign(folder: &Folder, log_end: i64) -> Result<()> {
    let mut moved = false;
    for (position, path) in list(folder)? {
        if position > log_end {
            let aside = beside(&folder.events_db(), &format!(".set-aside-{position}"));
            fs::rename(&path, &aside).map_err(io_error("set a snapshot aside", &path))?;
            log::warn!(
                "snapshot {} is of another history, for log.db ends at {log_end}: it is now {}",
                path.display(),
                aside.display()
            );
            moved = true;
        }
    }
    if moved {
        sync(&folder.snapshots())?;
        sync(folder.path())?;
    }
    Ok(())
}

/// What a rebuild did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The position of the snapshot that it began with. None: from nothing.
    pub snapshot_position: Option<i64>,
    /// How many messages of the log were applied to it.
    pub replayed: u64,
    /// Everything up to here is in the projection.
    pub position: i64,
    /// Where the projection of before lies, if there was one.
    pub set_aside: Option<PathBuf>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.snapshot_position {
            Some(position) => write!(f, "rebuilt from the snapshot at position {position}")?,
            None => f.write_str("rebuilt from nothing")?,
        }
        write!(
            f,
            " and {} messages of the log: everything up to position {} is there",
            self.replayed, self.position
        )?;
        match &self.set_aside {
            Some(path) => write!(f, "; the projection of before lies in {}", path.display()),
            None => Ok(()),
        }
    }
}

/// Makes the projection anew from the newest good snapshot and the log. The service is stopped.
///
/// # Errors
/// [`StoreError::Corrupt`], with nothing changed, when snapshot and log leave a gap.
pub(super) fn rebuild(folder: &Arc<Folder>, settings: &Settings) -> Result<Report> {
    let now = (settings.clock)();
    let mut log = LogReader::open(folder).map_err(|error| with_advice(folder, error))?;
    let (first, last) = (log.first_position()?, log.last_position()?);
    refuse_to_fall_behind(folder, last)?;
    let snapshot = newest_good(folder, last)?;
    let base = snapshot.as_ref().map_or(0, |(position, _)| *position);
    let is_covered = first.map_or(last <= base, |first| first <= base + 1);
    if !is_covered {
        let begins = first.map_or_else(|| "is empty".into(), |first| format!("begins at {first}"));
        return Err(StoreError::Corrupt {
            what: format!(
                "events.db cannot be rebuilt: the newest good snapshot covers position {base}, and the log {begins} \
                 (it has reached {last}); restore the folder from a backup"
            ),
        });
    }
    let unfinished = beside(&folder.events_db(), ".rebuilding");
    remove(&unfinished)?;
    if let Some((_, path)) = &snapshot {
        fs::copy(path, &unfinished).map_err(io_error("copy snapshot", &unfinished))?;
    }
    let mut connection = open_writer(&unfinished, false)?;
    schema::migrate(&mut connection, now)?;
    idempotency::migrate(&connection)?;
    let tables = Tables::new(settings.event_table_rows, settings.event_table_age);
    let mut session =
        Session::new(Arc::clone(folder), connection, log, None, Arc::default(), tables)?;
    let (mut replayed, mut batches) = (0, 0);
    loop {
        let count = session.replay(REPLAY_ROWS, &settings.policy, now)?;
        if count == 0 {
            break;
        }
        replayed += u64::try_from(count).unwrap_or(u64::MAX);
        batches += 1;
        if batches % BATCHES_PER_CHECKPOINT == 0 {
            checkpoint(session.connection())?;
            log::info!(position = session.position(), last; "rebuilding events.db");
        }
    }
    let position = session.position();
    session.close()?;
    sync(&unfinished)?;
    let set_aside = set_aside(folder, now)?;
    fs::rename(&unfinished, folder.events_db())
        .map_err(io_error("put in place", &folder.events_db()))?;
    sync(folder.path())?;
    Ok(Report {
        snapshot_position: snapshot.map(|(position, _)| position),
        replayed,
        position,
        set_aside,
    })
}

/// Refuses to put a projection that ends with the log in the place of one that reaches further: then the log is not the
/// one that belongs to it, or it is lost, and events that nobody else has would be gone from view.
fn refuse_to_fall_behind(folder: &Folder, log_end: i64) -> Result<()> {
    let path = folder.events_db();
    // One that is not there or cannot be read is what a rebuild is for.
    let applied = if path.exists() { position_of(&path).unwrap_or(0) } else { 0 };
    if applied <= log_end {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        what: format!(
            "log.db ends at {log_end}, and events.db has applied {applied}: a rebuild would lose what came after \
             {log_end}. Restore both from the same backup; to go on without it, move events.db away first"
        ),
    })
}

/// The newest snapshot that is whole and not ahead of the log.
fn newest_good(folder: &Folder, log_end: i64) -> Result<Option<(i64, PathBuf)>> {
    for (position, path) in list(folder)? {
        let look = || -> Result<Option<String>> {
            let connection = Connection::open(&path).map_err(|error| classify("open", error))?;
            if let Some(problem) = quick_check(&connection)? {
                return Ok(Some(problem));
            }
            let found = projection::position(&connection)
                .map_err(|error| classify("read position", error))?;
            Ok(if found != position {
                Some(format!("it covers position {found}"))
            } else if position > log_end {
                Some(format!("the log ends at {log_end}"))
            } else {
                None
            })
        };
        match look() {
            Ok(None) => return Ok(Some((position, path))),
            Ok(Some(problem)) => {
                log::warn!("snapshot {} is passed over: {problem}", path.display());
            }
            Err(error) => log::warn!("snapshot {} is passed over: {error}", path.display()),
        }
    }
    Ok(None)
}

/// Moves the projection there is out of the way, with its WAL, for people to look at.
fn set_aside(folder: &Folder, now: Timestamp) -> Result<Option<PathBuf>> {
    let path = folder.events_db();
    if !path.exists() {
        return Ok(None);
    }
    let aside = beside(&path, &format!(".damaged-{}", now.micros() / 1_000_000));
    for suffix in ["-wal", "-shm", ""] {
        match fs::rename(beside(&path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("set aside", &path)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(Some(aside))
}

/// Looks at the projection before it is opened, and rebuilds it when it is damaged or gone while the log is there.
pub(super) fn mend(folder: &Arc<Folder>, settings: &Settings) -> Result<Option<Report>> {
    let path = folder.events_db();
    let problem = match fs::metadata(&path) {
        Ok(file) if file.len() > CHECK_BYTES_MAX && !folder.was_unclean() => None,
        Ok(_) => look_at(&path)?,
        Err(_) if folder.log_db().exists() => Some("it is not there".to_string()),
        Err(_) => None,
    };
    let Some(problem) = problem else { return Ok(None) };
    log::error!("events.db cannot be used and is made anew: {problem}");
    let report = rebuild(folder, settings)?;
    log::warn!(position = report.position, replayed = report.replayed; "events.db: {report}");
    Ok(Some(report))
}

/// What is wrong with a projection. None: nothing.
fn look_at(path: &Path) -> Result<Option<String>> {
    match open_writer(path, false).and_then(|connection| quick_check(&connection)) {
        Err(StoreError::Corrupt { what }) => Ok(Some(what)),
        other => other,
    }
}
