//! Backups of the whole store while it is in use. This module copies the three files, the log last, and writes a
//! manifest that a restore checks.
//!
//! What must stay true: what the copy of the projection lacks, the copy of the log holds. So the log is copied last:
//! whatever was applied by the time the projection was copied, and more, is in it. Restoring is putting the folder
//! in place; the service applies the rest at its start.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::connection::{classify, open_reader};
use super::folder::{self, FOLDER_MODE};
use super::snapshot::{copy, io_error, position_of, sync};
use crate::domain::time::Timestamp;
use crate::store::{Result, StoreError};

/// The name of the manifest within a backup.
const MANIFEST: &str = "manifest.json";
/// What a backup holds, in the order of copying.
const FILES: [&str; 3] = ["events.db", "logs.db", "log.db"];

/// What a backup says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub made_at: String,
    /// Everything up to here is in the backup's `events.db`.
    pub events_position: i64,
    /// The oldest position in the backup's `log.db`. None: it is empty.
    pub log_first: Option<i64>,
    /// The newest position that the backup's `log.db` has given.
    pub log_last: i64,
    pub files: Vec<ManifestFile>,
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: u64 = self.files.iter().map(|file| file.bytes).sum();
        write!(
            f,
            "{} files, {bytes} bytes; the log reaches position {}, the projection {}",
            self.files.len(),
            self.log_last,
            self.events_position
        )
    }
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

fn describe(folder: &Path, name: &str) -> Result<ManifestFile> {
    let path = folder.join(name);
    let read = || -> io::Result<ManifestFile> {
        let mut file = File::open(&path)?;
        let (mut hasher, mut bytes) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1024 * 1024];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            bytes += u64::try_from(count).unwrap_or(0);
        }
        let sha256 = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(ManifestFile { name: name.into(), bytes, sha256 })
    };
    read().map_err(io_error("read backup", &path))
}

fn manifest(folder: &Path, made_at: String) -> Result<Manifest> {
    let log = open_reader(&folder.join("log.db"))?;
    let (log_first, log_last) = log
        .query_row(
            "SELECT (SELECT min(id) FROM log), coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'log'), 0)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(|error| classify("read the log's positions", error))?;
    let files = FILES.iter().map(|name| describe(folder, name)).collect::<Result<Vec<_>>>()?;
    let events_position = position_of(&folder.join("events.db"))?;
    Ok(Manifest { made_at, events_position, log_first, log_last, files })
}

fn is_complete(manifest: &Manifest) -> bool {
    manifest.log_last >= manifest.events_position
        && manifest.log_first.map_or(manifest.log_last == manifest.events_position, |first| {
            first <= manifest.events_position + 1
        })
}

/// Copies the store in `folder`, which may be in use by a running service, into the empty folder `to`.
///
/// # Errors
/// When `to` holds something, or when a file cannot be copied or is damaged.
pub fn backup(folder: &Path, to: &Path, now: Timestamp) -> Result<Manifest> {
    const CALL: &str = "backup";
    // What lies in the store's own folder for its owner alone is nobody else's to read here either.
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(to).map_err(io_error(CALL, to))?;
    let mut entries = fs::read_dir(to).map_err(io_error(CALL, to))?;
    if entries.next().is_some() {
        return Err(io_error(CALL, to)(io::Error::other(
            "it is not empty: name a folder that is not there yet",
        )));
    }
    for name in FILES {
        copy(&open_reader(&folder.join(name))?, &to.join(name))?;
    }
    let manifest = manifest(to, now.to_string())?;
    if !is_complete(&manifest) {
        return Err(StoreError::Corrupt {
            what: format!("log.db and events.db in {} are not of one store", folder.display()),
        });
    }
    let text = serde_json::to_string_pretty(&manifest)
        .map_err(|error| StoreError::Other { call: CALL, source: error.into() })?;
    let path = to.join(MANIFEST);
    folder::make(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(io_error(CALL, &path))?;
    sync(&path)?;
    sync(to)?;
    Ok(manifest)
}

/// Compares a backup with its manifest, byte for byte, and looks at its files.
///
/// # Errors
/// [`StoreError::Corrupt`] names what is not as it was.
pub fn check_backup(folder: &Path) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    let text = fs::read_to_string(&path).map_err(io_error("check backup", &path))?;
    let said: Manifest = serde_json::from_str(&text).map_err(|error| StoreError::Corrupt {
        what: format!("{} is no manifest: {error}", path.display()),
    })?;
    for file in &said.files {
        // A manifest is text that anybody may have edited: only our own names are opened.
        let is_ours = FILES.contains(&file.name.as_str());
        if !is_ours || describe(folder, &file.name)? != *file {
            return Err(StoreError::Corrupt {
                what: format!(
                    "{} in {} is not the one that was backed up",
                    file.name,
                    folder.display()
                ),
            });
        }
    }
    let found = manifest(folder, said.made_at.clone())?;
    if found != said || !is_complete(&found) {
        return Err(StoreError::Corrupt {
            what: format!("{} does not describe the files beside it", path.display()),
        });
    }
    Ok(said)
}
