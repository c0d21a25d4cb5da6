//! The way back: whatever happens to `events.db`, snapshot and log bring it back as it was, or it is said that they
//! cannot.

use std::fs;

use super::*;

impl Site {
    /// Some of everything, of which a part is applied.
    fn live(&mut self, rounds: usize) {
        for round in 0..rounds {
            for name in ["a", "b"] {
                self.post(name, "process.started", r#"{"process_name":"nightly"}"#);
                self.post("order", "Ordered", "{}");
                self.post(name, "process.bogus", "{}");
                self.post(name, "process.completed", &format!(r#"{{"result":{round}}}"#));
            }
        }
    }
}

/// Without the times of processing, which a rebuild makes anew.
fn lasting(site: &Site) -> Vec<String> {
    let processed = "strftime('%Y', 0)";
    let mut rows = site.everything();
    rows.retain(|row| !row.contains(" e"));
    rows.extend(site.ask(&format!(
        "SELECT id, event_id, source, type, stream_key, stream_seq, timestamp_utc, received_utc, payload, {processed} \
         FROM events ORDER BY id"
    )));
    rows
}

fn damage(folder: &Path) {
    let path = folder.join("events.db");
    // Or the WAL would cover the damage.
    let writer = open_writer(&path, false).unwrap();
    writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(writer);
    let mut bytes = fs::read(&path).unwrap();
    let from = bytes.len() / 3;
    for byte in &mut bytes[from..] {
        *byte ^= 0x5a;
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_rebuild_from_nothing_gives_the_same_rows() {
    let mut site = Site::new();
    site.live(6);
    site.apply(3);
    let before = lasting(&site);
    let settings = site.store.settings.clone();
    let site = site
        .restart(|folder| {
            let report = rebuild(&settings).unwrap();
            assert_eq!((report.snapshot_position, report.replayed), (None, 48));
            assert!(report.set_aside.unwrap().exists());
            assert!(!folder.join("events.db.rebuilding").exists());
        })
        .unwrap();
    assert_eq!(lasting(&site), before);
}

#[test]
fn a_rebuild_from_a_snapshot_and_a_trimmed_log_gives_the_same_rows() {
    let mut site = Site::new();
    site.live(4);
    site.apply(5);
    site.wait(31 * HOUR);
    let upkeep = site.store.keeper().unwrap().upkeep(site.now()).unwrap();
    assert_eq!((upkeep.trimmed_rows, upkeep.snapshot_position), (32, Some(32)));
    site.live(2);
    site.apply(5);
    // Accepted, and not applied when the service stopped.
    site.live(1);
    let settings = site.store.settings.clone();
    let before = {
        let mut site = site.restart(|_| {}).unwrap();
        site.apply(5);
        let before = lasting(&site);
        site.restart(|_| {
            let report = rebuild(&settings).unwrap();
            assert_eq!(
                (report.snapshot_position, report.replayed, report.position),
                (Some(32), 24, 56)
            );
        })
        .map(|site| (lasting(&site), before))
    };
    let (after, before) = before.unwrap();
    assert_eq!(after, before);
}

#[test]
fn a_damaged_projection_is_set_aside_and_rebuilt_at_the_start() {
    let mut site = Site::new();
    site.live(6);
    site.apply(3);
    let before = lasting(&site);
    let mut site = site.restart(damage).unwrap();
    assert_eq!(lasting(&site), before);
    let aside = fs::read_dir(site.place.path().join("data")).unwrap().any(|entry| {
        entry.unwrap().file_name().to_str().unwrap().starts_with("events.db.damaged-")
    });
    assert!(aside);
    site.live(1);
    site.apply(3);
    assert_eq!(site.projection.position(), 56);
}

#[test]
fn a_projection_that_is_gone_is_rebuilt_at_the_start() {
    let mut site = Site::new();
    site.live(3);
    site.apply(3);
    let before = lasting(&site);
    let site = site.restart(|folder| fs::remove_file(folder.join("events.db")).unwrap()).unwrap();
    assert_eq!(lasting(&site), before);
}

#[test]
fn a_rebuild_that_cannot_reach_everything_is_refused_and_touches_nothing() {
    let mut site = Site::new();
    site.live(4);
    site.apply(5);
    site.wait(31 * HOUR);
    site.store.keeper().unwrap().upkeep(site.now()).unwrap();
    site.live(1);
    site.apply(5);
    let refusal = site
        .restart(|folder| {
            for entry in fs::read_dir(folder.join("snapshots")).unwrap() {
                // No snapshot is good any more.
                fs::write(entry.unwrap().path(), "spoilt").unwrap();
            }
            damage(folder);
        })
        .err()
        .unwrap()
        .to_string();
    assert!(refusal.contains("covers position 0, and the log begins at 33"), "{refusal}");
    assert!(refusal.contains("restore the folder from a backup"), "{refusal}");
}

#[test]
fn a_backup_of_a_running_store_opens_and_a_tampered_one_is_found_out() {
    let mut site = Site::new();
    site.live(3);
    site.apply(5);
    site.live(1);
    let to = tempfile::tempdir().unwrap();
    let copy = to.path().join("data");
    let manifest = backup(site.store.folder.path(), &copy, site.now()).unwrap();
    assert_eq!(
        (manifest.events_position, manifest.log_first, manifest.log_last),
        (24, Some(1), 32)
    );
    assert_eq!(check_backup(&copy).unwrap(), manifest);
    assert!(backup(site.store.folder.path(), &copy, site.now()).is_err(), "never over another one");

    let kept = fs::read(copy.join("logs.db")).unwrap();
    fs::write(copy.join("logs.db"), &kept[1..]).unwrap();
    let refusal = check_backup(&copy).unwrap_err().to_string();
    assert!(refusal.contains("logs.db"), "{refusal}");
    fs::write(copy.join("logs.db"), &kept).unwrap();

    site.apply(5);
    let before = lasting(&site);
    let mut restored = open(Arc::new(to), Arc::clone(&site.clock)).unwrap();
    restored.apply(5);
    assert_eq!(lasting(&restored), before);
}

/// A folder's files, by name.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn snapshots_of_another_history_neither_let_rows_of_the_log_go_nor_come_back() {
    let mut site = Site::new();
    site.live(2);
    site.apply(5);
    let to = tempfile::tempdir().unwrap();
    let copy = to.path().join("data");
    backup(site.store.folder.path(), &copy, site.now()).unwrap();
    // What is lost by going back to the backup, with a snapshot of it.
    site.live(6);
    site.apply(5);
    site.wait(31 * HOUR);
    let upkeep = site.store.keeper().unwrap().upkeep(site.now()).unwrap();
    assert_eq!(upkeep.snapshot_position, Some(64));

    // The three files are put over the others; the snapshots stay beside them.
    let mut site = site
        .restart(|folder| {
            for name in ["events.db", "logs.db", "log.db"] {
                for suffix in ["-wal", "-shm"] {
                    let _ = fs::remove_file(folder.join(format!("{name}{suffix}")));
                }
                fs::copy(copy.join(name), folder.join(name)).unwrap();
            }
        })
        .unwrap();
    assert_eq!(site.projection.position(), 16);
    for _ in 0..40 {
        site.post("afterwards", "Ordered", "{}");
    }
    site.apply(5);
    site.wait(31 * HOUR);
    let upkeep = site.store.keeper().unwrap().upkeep(site.now()).unwrap();
    assert_eq!((upkeep.trimmed_rows, upkeep.snapshot_position), (56, Some(56)));
    // The log passes the place of the snapshot of before.
    for _ in 0..10 {
        site.post("afterwards", "Ordered", "{}");
    }
    site.apply(5);
    let before = lasting(&site);
    let site = site.restart(damage).unwrap();
    assert_eq!(lasting(&site), before);
    let folder = site.place.path().join("data");
    assert!(
        files(&folder).iter().any(|name| name == "events.db.set-aside-64"),
        "nothing is thrown away"
    );
}

#[test]
fn a_rebuild_that_would_fall_behind_a_whole_projection_is_refused_and_touches_nothing() {
    let mut site = Site::new();
    site.live(4);
    site.apply(5);
    let settings = site.store.settings.clone();
    let (place, clock) = (Arc::clone(&site.place), Arc::clone(&site.clock));
    let data = place.path().join("data");
    let start = site
        .restart(|folder| {
            // The log is lost, and a start tells so, which makes an empty one.
            fs::rename(folder.join("log.db"), folder.join("lost")).unwrap();
        })
        .err()
        .unwrap()
        .to_string();
    assert!(start.contains("log ends at 0, events.db has applied 32"), "{start}");
    let refusal = rebuild(&settings).unwrap_err().to_string();
    assert!(refusal.contains("log.db ends at 0, and events.db has applied 32"), "{refusal}");
    assert!(!files(&data).iter().any(|name| name.starts_with("events.db.damaged")));

    // Nothing was touched: with its log it opens.
    fs::rename(data.join("lost"), data.join("log.db")).unwrap();
    let mut site = open(place, clock).unwrap();
    assert_eq!(site.status("a").as_deref(), Some("COMPLETED"));
}
