//! Payloads lie in files that nobody but the user of the service may read, whatever the folder and the umask allow, and
//! in no core file.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::{Client, InChild, envelope, token};

/// Every file below `folder` that others may read or write, with its mode.
fn open_to_others(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let mode = metadata.permissions().mode();
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if mode & 0o077 != 0 {
                found.push((entry.path(), mode & 0o777));
            }
        }
    }
    found
}

/// The program with these words, for the store in `data`.
fn sentinel(data: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sentinel"));
    command
        .args(words)
        .env_clear()
        .env("SENTINEL_DATABASE", format!("sqlite://{}", data.display()));
    command
}

#[test]
fn the_files_of_the_store_and_of_its_backups_are_their_owners_alone() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    // Somebody has made the folder by hand, as others may look into it.
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let service = InChild::start(&data, &[]);
    let mut client = Client::new(service.api, &token(&data, "demo", &["sentinel:write"]));
    client.event("one", &envelope(1, "s", json!({"of": "nobody's business"}))).expect(202);
    assert_eq!(open_to_others(&data), []);
    let backup = place.path().join("copies/backup");
    let done = sentinel(&data, &["backup", &backup.display().to_string()]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(backup.join("log.db").exists());
    assert_eq!(open_to_others(&backup), []);
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(service.terminate(), 0);
    assert!(sentinel(&data, &["rebuild"]).status().unwrap().success());
    assert_eq!(open_to_others(&data), []);
}

#[test]
fn a_crash_leaves_no_core_file() {
    let folder = tempfile::tempdir().unwrap();
    // Where the shell that starts it would have one.
    let mut service = Command::new("sh")
        .args(["-c", "ulimit -c $(ulimit -Hc); exec \"$0\" serve --bind tcp://127.0.0.1:0"])
        .arg(env!("CARGO_BIN_EXE_sentinel"))
        .env("SENTINEL_DATABASE", format!("sqlite://{}", folder.path().display()))
        .env("PROMETHEUS_METRICS_PORT", "0")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(service.stdout.take().unwrap());
    let greeted = output.lines().any(|line| line.unwrap().contains("serves on"));
    assert!(greeted, "it ended before it served");
    let limits = fs::read_to_string(format!("/proc/{}/limits", service.id())).unwrap();
    service.kill().unwrap();
    service.wait().unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let soft = core.split_whitespace().nth(4).unwrap();
    assert_eq!(soft, "0", "{core}");
}
