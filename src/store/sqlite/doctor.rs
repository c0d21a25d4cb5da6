//! What is wrong with the folder of an embedded store. This module gathers facts without the folder's lock, so that it
//! works beside a running service, and judges them in pure code.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::statvfs;

use super::connection::{open_reader, quick_check};
use super::{Settings, log, schema, snapshot};
use crate::store::doctor::Finding;
use crate::store::{Result, StoreError};

/// The three files of the store.
const FILES: [&str; 3] = ["events.db", "logs.db", "log.db"];
/// More that is accepted and not applied than this is no passing burst: a listener applies thousands a second.
const BACKLOG_MAX: i64 = 100_000;

/// Looks at everything; nothing is changed.
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let folder = &settings.folder;
    let Ok(metadata) = fs::metadata(folder) else {
        return vec![Finding::unknown(
            "folder",
            format!("{} is not there yet: the first start makes it", folder.display()),
        )];
    };
    let own = rustix::process::geteuid().as_raw();
    let mut findings = vec![
        judge_folder(folder, metadata.mode(), metadata.uid(), own),
        judge_lock(holder(&folder.join("sentinel.lock"))),
        judge_space(folder, free_bytes(folder), settings.min_free_bytes),
    ];
    findings.extend(FILES.map(|name| judge_file(name, &folder.join(name), whole(folder, name))));
    findings.push(judge_schema(schema_of(folder)));
    findings.push(judge_snapshot(snapshot_age_s(folder)));
    findings.push(judge_backlog(backlog(folder)));
    findings
}

fn judge_folder(folder: &Path, mode: u32, owner: u32, own: u32) -> Finding {
    const CHECK: &str = "folder";
    let path = folder.display();
    // Root reads everybody's files, so the owner may be another one then.
    if owner != own && own != 0 {
        let found = format!("{path} belongs to user {owner}, and this is user {own}");
        return Finding::mend(CHECK, found, format!("sudo chown -R {own} '{path}'"));
    }
    if mode & 0o077 != 0 {
        let found = format!("{path} has mode {:o}: others may look into it", mode & 0o777);
        return Finding::mend(CHECK, found, format!("chmod 700 '{path}'"));
    }
    Finding::fine(CHECK, format!("{path}, mode {:o}, owner {owner}", mode & 0o777))
}

fn judge_lock(holder: Result<Option<String>>) -> Finding {
    match holder {
        Ok(Some(pid)) => Finding::fine("lock", format!("held by process {pid}")),
        Ok(None) => Finding::fine("lock", "nobody holds it: no service runs on this folder"),
        Err(error) => unseen("lock", &error),
    }
}

fn judge_space(folder: &Path, free: Result<u64>, min: u64) -> Finding {
    const CHECK: &str = "space";
    match free {
        Ok(free) if free < min => Finding::mend(
            CHECK,
            format!("{free} bytes are free, and SENTINEL_MIN_FREE_BYTES is {min}"),
            format!("df -h '{0}'; du -sh '{0}'/*", folder.display()),
        ),
        Ok(free) => Finding::fine(CHECK, format!("{free} bytes are free, {min} are needed")),
        Err(error) => unseen(CHECK, &error),
    }
}

fn judge_file(name: &'static str, path: &Path, whole: Result<Option<Option<String>>>) -> Finding {
    match whole {
        Ok(None) => Finding::unknown(name, "is not there yet: the first start makes it"),
        Ok(Some(None)) => Finding::fine(name, "is whole"),
        Ok(Some(Some(problem))) => Finding::mend(name, problem, how_to_mend(name, path)),
        Err(StoreError::Corrupt { what }) => Finding::mend(name, what, how_to_mend(name, path)),
        Err(error) => unseen(name, &error),
    }
}

fn how_to_mend(name: &str, path: &Path) -> String {
    let folder = path.parent().unwrap_or(path).display();
    if name == "events.db" {
        format!("sentinel --database 'sqlite://{folder}' rebuild   # with the service stopped")
    } else {
        format!(
            "cp -a BACKUP/*.db '{folder}'/   # with the service stopped, all files of one backup"
        )
    }
}

fn judge_schema(found: Result<Option<schema::Migrated>>) -> Finding {
    const CHECK: &str = "schema";
    match found {
        Ok(None) => Finding::unknown(CHECK, "there is no events.db yet"),
        Ok(Some(schema::Migrated { from, to })) if from == to => {
            Finding::fine(CHECK, format!("version {to}"))
        }
        Ok(Some(schema::Migrated { from, to })) => Finding::mend(
            CHECK,
            format!("version {from}, and this program works with {to}"),
            "sentinel migrate   # with the service stopped",
        ),
        Err(StoreError::Corrupt { what }) => {
            Finding::mend(CHECK, what, "sentinel --version   # install the release that wrote it")
        }
        Err(error) => unseen(CHECK, &error),
    }
}

fn judge_snapshot(age_s: Result<Option<u64>>) -> Finding {
    match age_s {
        Ok(Some(age)) => Finding::fine("snapshot", format!("the newest is {age} s old")),
        Ok(None) => Finding::unknown("snapshot", "none yet: one is made when it is needed"),
        Err(error) => unseen("snapshot", &error),
    }
}

fn judge_backlog(backlog: Result<Option<i64>>) -> Finding {
    const CHECK: &str = "backlog";
    match backlog {
        Ok(None) => Finding::unknown(CHECK, "there is no log yet"),
        Ok(Some(count)) if count > BACKLOG_MAX => Finding::mend(
            CHECK,
            format!("{count} events are accepted and not applied"),
            "sentinel health --ready   # says whether the listener gets on",
        ),
        Ok(Some(count)) => {
            Finding::fine(CHECK, format!("{count} events are accepted and not applied"))
        }
        Err(error) => unseen(CHECK, &error),
    }
}

fn unseen(check: &'static str, error: &StoreError) -> Finding {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    Finding::unknown(check, format!("cannot be seen: {error}{}", cause.unwrap_or_default()))
}

/// Who holds the lock, by the system's own list: trying to take it could turn a starting service away.
fn holder(lock: &Path) -> Result<Option<String>> {
    let failed = |error: std::io::Error| StoreError::Other {
        call: "look for the lock",
        source: error.into(),
    };
    let Ok(metadata) = fs::metadata(lock) else { return Ok(None) };
    let locks = fs::read_to_string("/proc/locks").map_err(failed)?;
    let of_file = format!(":{}", metadata.ino());
    Ok(locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().filter(|word| *word != "->");
        let kind = words.nth(1)?;
        let pid = words.nth(2)?;
        (kind == "FLOCK" && words.next()?.ends_with(&of_file)).then(|| pid.to_string())
    }))
}

fn free_bytes(folder: &Path) -> Result<u64> {
    let space = statvfs(folder).map_err(|error| StoreError::Other {
        call: "free bytes",
        source: std::io::Error::from(error).into(),
    })?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

/// None: there is no such file. Some(None): it is whole.
fn whole(folder: &Path, name: &str) -> Result<Option<Option<String>>> {
    let path = folder.join(name);
    if !path.exists() {
        return Ok(None);
    }
    quick_check(&open_reader(&path)?).map(Some)
}

fn schema_of(folder: &Path) -> Result<Option<schema::Migrated>> {
    let path = folder.join("events.db");
    if !path.exists() {
        return Ok(None);
    }
    schema::check(&open_reader(&path)?).map(Some)
}

fn snapshot_age_s(folder: &Path) -> Result<Option<u64>> {
    let Ok(entries) = fs::read_dir(folder.join("snapshots")) else { return Ok(None) };
    let newest = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|end| end == "db"))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max();
    let age = newest.map(|at| SystemTime::now().duration_since(at).unwrap_or_default().as_secs());
    Ok(age)
}

fn backlog(folder: &Path) -> Result<Option<i64>> {
    let (events, log) = (folder.join("events.db"), folder.join("log.db"));
    if !events.exists() || !log.exists() {
        return Ok(None);
    }
    // The projection first: what is accepted in between then counts as waiting, never as less than nothing.
    let applied = snapshot::position_of(&events)?;
    let accepted = log::last_position(&open_reader(&log)?)?;
    Ok(Some(accepted.saturating_sub(applied).max(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;

    #[test]
    fn every_fact_is_judged_and_what_must_be_mended_says_how() {
        let place = Path::new("/d");
        let other = || StoreError::Other { call: "x", source: "no".into() };
        let versions = |from, to| Ok(Some(schema::Migrated { from, to }));
        let table = [
            (judge_folder(place, 0o40_700, 7, 7), Verdict::Fine),
            (judge_folder(place, 0o40_700, 8, 7), Verdict::Mend),
            (judge_folder(place, 0o40_700, 8, 0), Verdict::Fine),
            (judge_folder(place, 0o40_750, 7, 7), Verdict::Mend),
            (judge_lock(Ok(Some("12".into()))), Verdict::Fine),
            (judge_lock(Err(other())), Verdict::Unknown),
            (judge_space(place, Ok(99), 100), Verdict::Mend),
            (judge_space(place, Ok(100), 100), Verdict::Fine),
            (judge_file("events.db", place, Ok(Some(Some("torn".into())))), Verdict::Mend),
            (judge_file("log.db", place, Ok(Some(None))), Verdict::Fine),
            (judge_file("log.db", place, Ok(None)), Verdict::Unknown),
            (judge_schema(versions(1, 2)), Verdict::Mend),
            (judge_schema(versions(2, 2)), Verdict::Fine),
            (judge_snapshot(Ok(Some(5))), Verdict::Fine),
            (judge_backlog(Ok(Some(BACKLOG_MAX))), Verdict::Fine),
            (judge_backlog(Ok(Some(BACKLOG_MAX + 1))), Verdict::Mend),
        ];
        for (finding, wanted) in table {
            assert_eq!(finding.verdict, wanted, "{finding:?}");
            assert_eq!(finding.mend.is_some(), wanted == Verdict::Mend, "{finding:?}");
        }
    }
}
