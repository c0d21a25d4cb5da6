//! Where a connect string leads to. This module finds the PostgreSQL server and the folder by which a test steers.
//!
//! A service name is a database of the server in the stand-in's folder. That folder is named by `OCI_STANDIN_FOLDER`, or
//! by the file `standin-folder` beside this library: a service under test needs no environment of its own. It holds
//! `pg` with the socket, and `control/<database>` (see `faults`).

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::errors::{OraError, Result};
use crate::faults::Faults;

#[derive(Debug)]
pub(crate) struct Place {
    pub socket: PathBuf,
    pub database: String,
    pub control: PathBuf,
    pub faults: Faults,
}

/// What counts calls has to outlive a connection and to be one for all: the third connect of a process is a place in
/// time that no connection knows. Nothing else is global.
static KNOWN: OnceLock<Mutex<HashMap<PathBuf, Arc<Place>>>> = OnceLock::new();

impl Place {
    pub(crate) fn of_connect_string(text: &str) -> Result<Arc<Self>> {
        let (folder, database) = match text.strip_prefix('/') {
            // An absolute path names the folder and the database at once.
            Some(rest) if !rest.starts_with('/') => match text.rsplit_once('/') {
                Some((folder, database)) => (PathBuf::from(folder), database.to_owned()),
                None => return Err(unknown(text)),
            },
            _ => (folder()?, service_name(text).ok_or_else(|| unknown(text))?),
        };
        let control = folder.join("control").join(&database);
        let known = KNOWN.get_or_init(Mutex::default);
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = known.get(&control).cloned() {
            return Ok(place);
        }
        let socket = folder.join("pg").join(".s.PGSQL.5432");
        let faults = Faults::steered_by(&control);
        let place = Arc::new(Self { socket, database, control: control.clone(), faults });
        known.insert(control, Arc::clone(&place));
        Ok(place)
    }
}

fn unknown(text: &str) -> OraError {
    let words = "TNS:could not resolve the connect identifier specified";
    OraError::new(12154, format!("{words} (stand-in: {text:?} names no service)"))
}

/// The service of an alias, of `host:port/service`, or of a descriptor, in lower case.
fn service_name(text: &str) -> Option<String> {
    let upper = text.to_uppercase();
    let found = match upper.find("SERVICE_NAME") {
        Some(start) => {
            let value = text[start..].split_once('=')?.1;
            value.split(')').next()?
        }
        None => text.rsplit('/').next()?.split(['?', ':']).next()?,
    };
    let found = found.trim().to_lowercase();
    let plain = found.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (plain && !found.is_empty()).then_some(found)
}

fn folder() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("OCI_STANDIN_FOLDER") {
        return Ok(folder.into());
    }
    let beside =
        library().and_then(|path| path.parent().map(|folder| folder.join("standin-folder")));
    let named = beside.and_then(|file| std::fs::read_to_string(file).ok());
    named.map(|name| PathBuf::from(name.trim())).ok_or_else(|| {
        OraError::new(
            12560,
            "stand-in: neither OCI_STANDIN_FOLDER nor the file standin-folder beside it",
        )
    })
}

/// The file that this code was loaded from.
fn library() -> Option<PathBuf> {
    // SAFETY: all bits zero is a valid `Dl_info`, which is pointers only.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    let own = library as *const c_void;
    // SAFETY: `own` points into this library and `found` is ours to write.
    let known = unsafe { libc::dladdr(own, &raw mut found) } != 0;
    if !known || found.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's name of a loaded file is a C string that lives as long as the file is loaded.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    Some(Path::new(OsStr::from_bytes(name.to_bytes())).to_owned())
}

#[cfg(test)]
mod tests {
    use super::service_name;

    #[test]
    fn a_service_is_found_in_every_kind_of_connect_string() {
        for text in [
            "S1",
            "//host/s1",
            "host:1521/s1",
            "tcps://host:2484/s1?ssl_server_dn_match=on",
            "(DESCRIPTION=(ADDRESS=(PROTOCOL=TCPS)(HOST=h)(PORT=1))(CONNECT_DATA=(SERVICE_NAME=s1)))",
        ] {
            assert_eq!(service_name(text).as_deref(), Some("s1"), "{text}");
        }
        assert_eq!(service_name(""), None);
    }
}
