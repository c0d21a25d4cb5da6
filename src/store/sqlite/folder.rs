//! The folder of the embedded store: who may use it, what lies where, and whether there is room. This module holds
//! the lock that keeps a second instance out, and the word on whether the store takes writes.
//!
//! What must stay true: no file in the folder is opened before the lock is held, and a store that refused a write
//! says so at once, to everybody, and says otherwise only after a write has gone through.

use parking_lot::Mutex;
use std::ffi::CStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use rustix::fs::{
    Dir, FlockOperation, Gid, Mode, OFlags, Uid, fchown, flock, open, openat, statvfs,
};
use rustix::io::Errno;

use crate::store::{Result, StoreError, WriteState};

const CALL: &str = "open the folder";

/// Only the service's own user may look into the folder: payloads and keys lie in it.
pub(super) const FOLDER_MODE: u32 = 0o700;

/// The same for files that we make ourselves.
const FILE_MODE: u32 = 0o600;

/// Makes an empty file that nobody but its owner may read.
pub(super) fn make(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// A folder that this instance, and no other, works in.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Held as long as this value lives; the system frees it when the process ends, however it ends.
    lock: File,
    was_unclean: bool,
    tainted: AtomicBool,
}

impl Folder {
    /// Makes the folder if it is not there and takes its lock.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when another instance holds it (exit 75), [`StoreError::NoSpace`] when it cannot be made
    /// or opened.
    pub(super) fn lock(path: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .map_err(|error| refused("the store's folder cannot be made", path, &error))?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path.join("sentinel.lock"))
            .map_err(|error| refused("the store's folder cannot be written", path, &error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = (&lock).take(20).read_to_string(&mut holder);
                let source = format!(
                    "another instance (process {}) works in {}: stop it, or give this one its own folder",
                    holder.trim(),
                    path.display()
                );
                return Err(StoreError::Busy { call: CALL, source: source.into() });
            }
            Err(error) => {
                return Err(StoreError::Other {
                    call: CALL,
                    source: format!("{} cannot be locked: {error}", path.display()).into(),
                });
            }
        }
        // The number is for people who find the folder taken; the lock does not depend on it.
        let _ = lock.set_len(0).and_then(|()| lock.rewind());
        let _ = write!(lock, "{}", std::process::id());
        let running = path.join(RUNNING);
        let was_unclean = running.exists();
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(running)
            .map_err(|error| refused("the store's folder cannot be written", path, &error))?;
        Ok(Self { path: path.into(), lock, was_unclean, tainted: AtomicBool::new(false) })
    }

    /// Where the folder is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The log of accepted events.
    pub(super) fn log_db(&self) -> PathBuf {
        self.path.join("log.db")
    }

    /// The projection.
    pub(super) fn events_db(&self) -> PathBuf {
        self.path.join("events.db")
    }

    /// The log rows of processes.
    pub(super) fn logs_db(&self) -> PathBuf {
        self.path.join("logs.db")
    }

    /// Where checked snapshots of the projection lie.
    pub(super) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }

    /// Whether the instance before this one did not stop in order, so that its files deserve a look.
    pub(super) fn was_unclean(&self) -> bool {
        self.was_unclean
    }

    /// An input/output error happened: the next start looks at the files, however this one ends.
    pub(super) fn taint(&self) {
        self.tainted.store(true, Ordering::Relaxed);
    }

    /// Free bytes that the service's user may use on this file system.
    pub(super) fn free_bytes(&self) -> Result<u64> {
        let space = statvfs(&self.path).map_err(|error| StoreError::Other {
            call: "free bytes",
            source: io::Error::from(error).into(),
        })?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

/// Lies in the folder while an instance runs; left behind, it tells of an end that was none.
const RUNNING: &str = "sentinel.running";

impl Drop for Folder {
    fn drop(&mut self) {
        hand_over(&self.path);
        if !self.tainted.load(Ordering::Relaxed) && !std::thread::panicking() {
            // If it stays, the next start only looks longer.
            let _ = fs::remove_file(self.path.join(RUNNING));
        }
        // Given back by name: a child that is just being started still holds a copy of the file, and would keep the
        // lock for a moment if it went only with the last copy.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// Gives what root has made in somebody else's folder to the folder's owner: an operator mends as root, and the service
/// that starts afterwards must be able to write what was mended.
fn hand_over(path: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(folder) = open(path, flags, Mode::empty()).map(File::from) else { return };
    let Ok(owner) = folder.metadata() else { return };
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return;
    }
    hand_over_files(&folder, &owner);
    if let Some(snapshots) = open_within(&folder, c"snapshots", OFlags::DIRECTORY) {
        hand_over_file(&snapshots, &owner);
        hand_over_files(&snapshots, &owner);
    }
}

fn hand_over_files(folder: &File, owner: &Metadata) {
    let Ok(entries) = Dir::read_from(folder) else { return };
    for entry in entries.flatten() {
        let Some(file) = open_within(folder, entry.file_name(), OFlags::NONBLOCK) else { continue };
        // The folder is the other user's, who may have put a link to a file of root's there. A symbolic one was not
        // followed, and a file with a second name is left alone.
        if file.metadata().is_ok_and(|found| found.is_file() && found.nlink() == 1) {
            hand_over_file(&file, owner);
        }
    }
}

fn open_within(folder: &File, name: &CStr, flags: OFlags) -> Option<File> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(folder, name, flags, Mode::empty()).ok().map(File::from)
}

fn hand_over_file(file: &File, owner: &Metadata) {
    let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    if file.metadata().is_ok_and(|found| found.uid() == 0)
        && let Err(error) = fchown(file, Some(user), Some(group))
    {
        log::warn!("a file stays root's, and the service may not write it: {error}");
    }
}

fn refused(why: &'static str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::NoSpace { call: CALL, why, source: format!("{}: {error}", path.display()).into() }
}

const LOW: &str = "the disk is nearly full: log rows are not kept, events still are";
const EXHAUSTED: &str =
    "the disk is full but for a reserve: nothing is accepted until space is freed";

/// Whether the store takes writes. Shared by the threads that write and by those who must say so.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// What the watermark says: 0 open, 1 shedding log rows, 2 closed.
    level: AtomicU8,
    /// A write was refused, and none has succeeded since.
    is_refused: AtomicBool,
    /// Why it was, for people.
    why: Mutex<&'static str>,
}

impl Space {
    /// Compares the free bytes with the watermark: below it log rows are shed, below half of it nothing goes in, so
    /// that trims and checkpoints still have room.
    pub(super) fn observe(&self, free_bytes: u64, min_free_bytes: u64) {
        let level = if free_bytes < min_free_bytes / 2 {
            2
        } else if free_bytes < min_free_bytes {
            1
        } else {
            0
        };
        let before = self.level.swap(level, Ordering::Relaxed);
        if before != level {
            log::warn!(free_bytes, min_free_bytes; "free space on disk: now {:?}", self.state());
        }
    }

    /// A write was refused for want of space or rights.
    pub(super) fn refuse(&self, why: &'static str) {
        *self.why.lock() = why;
        if !self.is_refused.swap(true, Ordering::Relaxed) {
            log::error!("nothing is accepted until a write goes through again: {why}");
        }
    }

    /// A probe went through.
    pub(super) fn reopen(&self) {
        if self.is_refused.swap(false, Ordering::Relaxed) {
            log::info!("the store takes writes again");
        }
    }

    /// Whether a probe is what it takes to open again.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.load(Ordering::Relaxed)
    }

    /// What the doors and `/ready` go by.
    pub(super) fn state(&self) -> WriteState {
        match (self.is_refused(), self.level.load(Ordering::Relaxed)) {
            (true, _) => WriteState::Closed(*self.why.lock()),
            (false, 0) => WriteState::Open,
            (false, 1) => WriteState::SheddingLogs(LOW),
            (false, _) => WriteState::Closed(EXHAUSTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_instance_is_refused_with_words_and_may_come_after_the_first() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        let first = Folder::lock(&path).unwrap();
        let refusal = Folder::lock(&path).unwrap_err();
        assert!(matches!(refusal, StoreError::Busy { .. }));
        let words = std::error::Error::source(&refusal).unwrap().to_string();
        assert!(words.contains("another instance"), "{words}");
        assert!(words.contains(&std::process::id().to_string()), "{words}");
        drop(first);
        assert!(!Folder::lock(&path).unwrap().was_unclean());
    }

    #[test]
    fn nobody_else_looks_into_the_folder() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::lock(&place.path().join("a/b")).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(folder.free_bytes().unwrap() > 0);
    }

    #[test]
    fn an_end_out_of_order_is_remembered() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::lock(place.path()).unwrap();
        folder.taint();
        drop(folder);
        assert!(Folder::lock(place.path()).unwrap().was_unclean());
    }

    #[test]
    fn logs_are_shed_first_and_events_refused_later() {
        let space = Space::default();
        for (free, wanted) in [
            (100, WriteState::Open),
            (99, WriteState::SheddingLogs(LOW)),
            (49, WriteState::Closed(EXHAUSTED)),
            (100, WriteState::Open),
        ] {
            space.observe(free, 100);
            assert_eq!(space.state(), wanted, "{free} bytes");
        }
        space.refuse("the disk is full");
        space.observe(1000, 100);
        assert_eq!(
            space.state(),
            WriteState::Closed("the disk is full"),
            "room alone does not open it"
        );
        space.reopen();
        assert_eq!(space.state(), WriteState::Open);
    }
}
