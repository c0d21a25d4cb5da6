//! What is wrong with the folder of an embedded store. This module gathers facts without the folder's lock, so that it
//! works beside a running service, and judges them in pure code.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::statvfs;

use super::connection::{classify, open_reader, quick_check};
use super::{Settings, log, schema, snapshot};
use crate::domain::time::Timestamp;
use crate::store::doctor::{Check, Finding};
use crate::store::{Result, StoreError};

const FOLDER: Check = Check::new(
    "folder",
    "whoever may read or write the folder may read and forge everything in it",
);
const LOCK: Check = Check::new("lock", "one instance holds the folder; a second one is refused");
const SPACE: Check = Check::new("space", "without room log rows and then events are refused");
/// The three files of the store.
const FILES: [Check; 3] = [
    Check::new(
        "events.db",
        "it holds everything derived; a damaged page ends the service at the next read of it",
    ),
    Check::new("logs.db", "it holds the log rows, and nothing can make them anew"),
    Check::new("log.db", "it holds every accepted event, and is what everything else is made from"),
];
const SCHEMA: Check = Check::new(
    "schema",
    "a program and files of different releases misunderstand each other's rows",
);
const SNAPSHOT: Check = Check::new(
    "snapshot",
    "a damaged events.db is made anew from the newest one, and else from all of the log",
);
const BACKLOG: Check = Check::new(
    "backlog",
    "what is accepted and not applied is kept, but lists and streams are behind",
);
const NEWEST: Check = Check::new(
    "newest event",
    "a clock that was set back dates new events before old ones, and deadlines come late by as much",
);
/// Clocks of the machine are stepped by less than this.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// More that is accepted and not applied than this is no passing burst: a listener applies thousands a second.
const BACKLOG_MAX: i64 = 100_000;

/// Looks at everything; nothing is changed.
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let folder = &settings.folder;
    let Ok(metadata) = fs::metadata(folder) else {
        return vec![
            FOLDER.unknown(format!(
                "{} is not there yet: the first start makes it",
                folder.display()
            )),
        ];
    };
    let own = rustix::process::geteuid().as_raw();
    let judged = judge_folder(folder, metadata.mode(), metadata.uid(), own);
    if let Err(error) = fs::read_dir(folder) {
        // What cannot be looked into must not pass for empty.
        return vec![judged, LOCK.unknown(format!("cannot be seen, nor can the files: {error}"))];
    }
    let mut findings = vec![
        judged,
        judge_lock(holder(&folder.join("sentinel.lock"))),
        judge_space(folder, free_bytes(folder), settings.min_free_bytes),
    ];
    findings.extend(
        FILES.map(|check| judge_file(check, &folder.join(check.name), whole(folder, check.name))),
    );
    findings.push(judge_schema(schema_of(folder)));
    findings.push(judge_snapshot(snapshot_age_s(folder)));
    findings.push(judge_backlog(backlog(folder)));
    findings.push(judge_newest(newest(folder), (settings.clock)()));
    findings
}

fn judge_folder(folder: &Path, mode: u32, owner: u32, own: u32) -> Finding {
    let path = folder.display();
    // Root reads everybody's files, so the owner may be another one then.
    if owner != own && own != 0 {
        let found = format!("{path} belongs to user {owner}, and this is user {own}");
        let step = "sudo -E sentinel doctor   # or as the user of the service";
        return FOLDER.warn(
            found,
            format!("{step}; a service of user {own} needs: sudo chown -R {own} '{path}'"),
        );
    }
    if mode & 0o077 != 0 {
        let found = format!("{path} has mode {:o}: others may look into it", mode & 0o777);
        return FOLDER.warn(found, format!("chmod 700 '{path}'"));
    }
    FOLDER.ok(format!("{path}, mode {:o}, owner {owner}", mode & 0o777))
}

fn judge_lock(holder: Result<Option<String>>) -> Finding {
    match holder {
        Ok(Some(pid)) => LOCK.ok(format!("held by process {pid}")),
        Ok(None) => LOCK.ok("nobody holds it: no service runs on this folder"),
        Err(error) => unseen(LOCK, &error),
    }
}

fn judge_space(folder: &Path, free: Result<u64>, min: u64) -> Finding {
    match free {
        Ok(free) if free < min => SPACE.fail(
            format!("{free} bytes are free, and SENTINEL_MIN_FREE_BYTES is {min}"),
            format!("df -h '{0}'; du -sh '{0}'/*", folder.display()),
        ),
        Ok(free) => SPACE.ok(format!("{free} bytes are free, {min} are needed")),
        Err(error) => unseen(SPACE, &error),
    }
}

fn judge_file(check: Check, path: &Path, whole: Result<Option<Option<String>>>) -> Finding {
    match whole {
        Ok(None) => check.unknown("is not there yet: the first start makes it"),
        Ok(Some(None)) => check.ok("is whole"),
        Ok(Some(Some(problem))) => check.fail(problem, how_to_mend(check.name, path)),
        Err(StoreError::Corrupt { what }) => check.fail(what, how_to_mend(check.name, path)),
        Err(error) => unseen(check, &error),
    }
}

fn how_to_mend(name: &str, path: &Path) -> String {
    let folder = path.parent().unwrap_or(path).display();
    match name {
        "events.db" => {
            format!("sentinel --database 'sqlite://{folder}' rebuild   # with the service stopped")
        }
        // A backup would take the events back to its day, too.
        "logs.db" => {
            format!(
                "mv '{folder}'/logs.db* ELSEWHERE/   # with the service stopped; rows begin anew, no event is lost"
            )
        }
        _ => format!(
            "cp -a BACKUP/*.db '{folder}'/   # with the service stopped, all files of one backup"
        ),
    }
}

fn judge_schema(found: Result<Option<schema::Migrated>>) -> Finding {
    match found {
        Ok(None) => SCHEMA.unknown("there is no events.db yet"),
        Ok(Some(schema::Migrated { from, to })) if from == to => SCHEMA.ok(format!("version {to}")),
        Ok(Some(schema::Migrated { from, to })) => SCHEMA.fail(
            format!("version {from}, and this program works with {to}"),
            "sentinel migrate   # with the service stopped",
        ),
        Err(StoreError::Corrupt { what }) => {
            SCHEMA.fail(what, "sentinel --version   # install the release that wrote it")
        }
        Err(error) => unseen(SCHEMA, &error),
    }
}

fn judge_snapshot(age_s: Result<Option<u64>>) -> Finding {
    match age_s {
        Ok(Some(age)) => SNAPSHOT.ok(format!("the newest is {age} s old")),
        Ok(None) => SNAPSHOT.unknown("none yet: one is made when it is needed"),
        Err(error) => unseen(SNAPSHOT, &error),
    }
}

fn judge_backlog(backlog: Result<Option<i64>>) -> Finding {
    match backlog {
        Ok(None) => BACKLOG.unknown("there is no log yet"),
        Ok(Some(count)) if count > BACKLOG_MAX => BACKLOG.warn(
            format!("{count} events are accepted and not applied"),
            "sentinel health --ready   # says whether the listener gets on",
        ),
        Ok(Some(count)) => BACKLOG.ok(format!("{count} events are accepted and not applied")),
        Err(error) => unseen(BACKLOG, &error),
    }
}

fn judge_newest(newest: Result<Option<Timestamp>>, now: Timestamp) -> Finding {
    match newest {
        Ok(None) => NEWEST.unknown("there is no event yet"),
        Ok(Some(newest)) if newest.since(now) > AHEAD_MAX => NEWEST.fail(
            format!("it was accepted at {newest}, and now is {now}: this clock was set back"),
            "timedatectl set-ntp true && timedatectl timesync-status",
        ),
        Ok(Some(newest)) => NEWEST.ok(format!("accepted at {newest}, now is {now}")),
        Err(error) => unseen(NEWEST, &error),
    }
}

fn unseen(check: Check, error: &StoreError) -> Finding {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    check.unknown(format!("cannot be seen: {error}{}", cause.unwrap_or_default()))
}

/// Who holds the lock, by the system's own list: trying to take it could turn a starting service away.
fn holder(lock: &Path) -> Result<Option<String>> {
    let failed =
        |error: io::Error| StoreError::Other { call: "look for the lock", source: error.into() };
    let metadata = match fs::metadata(lock) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
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
        source: io::Error::from(error).into(),
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

/// When the newest event of the projection was accepted.
fn newest(folder: &Path) -> Result<Option<Timestamp>> {
    const NEWEST_RECEIVED: &str = "SELECT max(last_received_us) FROM event_table";
    let path = folder.join("events.db");
    if !path.exists() {
        return Ok(None);
    }
    let newest: Option<i64> = open_reader(&path)?
        .query_row(NEWEST_RECEIVED, [], |row| row.get(0))
        .map_err(|error| classify("newest event", error))?;
    Ok(newest.map(Timestamp::from_micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;

    #[test]
    fn every_fact_is_judged_and_what_must_be_mended_says_how() {
        let place = Path::new("/d");
        let other = || StoreError::Other { call: "x", source: "no".into() };
        let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
        let versions = |from, to| Ok(Some(schema::Migrated { from, to }));
        let table = [
            (judge_folder(place, 0o40_700, 7, 7), Verdict::Ok),
            (judge_folder(place, 0o40_700, 8, 7), Verdict::Warn),
            (judge_folder(place, 0o40_700, 8, 0), Verdict::Ok),
            (judge_folder(place, 0o40_750, 7, 7), Verdict::Warn),
            (judge_lock(Ok(Some("12".into()))), Verdict::Ok),
            (judge_lock(Err(other())), Verdict::Unknown),
            (judge_space(place, Ok(99), 100), Verdict::Fail),
            (judge_space(place, Ok(100), 100), Verdict::Ok),
            (judge_file(FILES[0], place, Ok(Some(Some("torn".into())))), Verdict::Fail),
            (judge_file(FILES[2], place, Ok(Some(None))), Verdict::Ok),
            (judge_file(FILES[2], place, Ok(None)), Verdict::Unknown),
            (judge_schema(versions(1, 2)), Verdict::Fail),
            (judge_schema(versions(2, 2)), Verdict::Ok),
            (judge_newest(Ok(Some(at(160))), at(100)), Verdict::Ok),
            (judge_newest(Ok(Some(at(161))), at(100)), Verdict::Fail),
            (judge_newest(Ok(Some(at(5))), at(100)), Verdict::Ok),
            (judge_newest(Ok(None), at(100)), Verdict::Unknown),
            (judge_snapshot(Ok(Some(5))), Verdict::Ok),
            (judge_backlog(Ok(Some(BACKLOG_MAX))), Verdict::Ok),
            (judge_backlog(Ok(Some(BACKLOG_MAX + 1))), Verdict::Warn),
        ];
        for (finding, wanted) in table {
            assert_eq!(finding.verdict, wanted, "{finding:?}");
            assert_eq!(finding.mend.is_some(), wanted > Verdict::Unknown, "{finding:?}");
        }
    }
}
