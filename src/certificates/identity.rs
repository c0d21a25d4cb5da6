//! What one port shows to its clients, now and after the files have changed. This module reads them again and swaps
//! what new connections get; connections that are open keep what they began with.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;

use super::{Flaw, Loaded, ServerFiles, load};

/// What tells one version of a file from another. Links are followed, so that a mounted secret that is swapped by a
/// link is seen.
type Version = Option<(u64, i64, i64, u64)>;

/// The certificate of a port.
pub struct ServerIdentity {
    /// What the log calls the port.
    name: &'static str,
    files: ServerFiles,
    current: RwLock<Arc<ServerConfig>>,
    /// The files as they were when they were last read, well or badly.
    seen: Mutex<Vec<Version>>,
}

impl ServerIdentity {
    /// Reads the files for the port that the log calls `name`.
    ///
    /// # Errors
    /// With everything that is wrong with them.
    pub fn open(name: &'static str, files: ServerFiles) -> anyhow::Result<Arc<Self>> {
        let seen = Mutex::new(versions(&files));
        let loaded = read(&files).map_err(|flaws| anyhow::anyhow!("{}", words(&flaws)))?;
        Ok(Arc::new(Self { name, files, current: RwLock::new(loaded.server), seen }))
    }

    /// What a new connection gets.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read())
    }

    /// Reads the files again. A broken one keeps what was there, and the log says why.
    pub fn reload(&self) {
        // Noted before they are read: what changes meanwhile is read once more.
        *self.seen.lock() = versions(&self.files);
        match read(&self.files) {
            Ok(loaded) => {
                *self.current.write() = loaded.server;
                log::info!(
                    port = self.name, valid_until_s = loaded.validity.not_after_s;
                    "the certificate of the {} port has been read again", self.name
                );
            }
            Err(flaws) => log::error!(
                port = self.name;
                "the certificate of the {} port stays as it was, because the new files are no good: {}",
                self.name, words(&flaws)
            ),
        }
    }

    /// Reads the files again if they have changed.
    pub fn look(&self) {
        let now = versions(&self.files);
        if *self.seen.lock() != now {
            self.reload();
        }
    }
}

fn read(files: &ServerFiles) -> Result<Loaded, Vec<Flaw>> {
    load(files, &|path| fs::read_to_string(path))
}

fn words(flaws: &[Flaw]) -> String {
    flaws.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn versions(files: &ServerFiles) -> Vec<Version> {
    let version = |path: &Path| {
        let data = fs::metadata(path).ok()?;
        Some((data.ino(), data.mtime(), data.mtime_nsec(), data.len()))
    };
    files.paths().map(version).collect()
}
