//! `sentinel doctor` on the embedded store. This module runs the program beside a running service, and on files that
//! are damaged.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::InChild;

fn doctor(folder: &Path) -> (Option<i32>, Vec<Value>) {
    let output = Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .args(["--database", &format!("sqlite://{}", folder.display()), "doctor", "--json"])
        .env_clear()
        .env("SENTINEL_MAX_CONNECTIONS", "100")
        .env("SENTINEL_MIN_FREE_BYTES", "0")
        .output()
        .unwrap();
    let findings = serde_json::from_slice(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), findings.unwrap_or_else(|error| panic!("{error}: {words}")))
}

fn verdict<'f>(findings: &'f [Value], check: &str) -> &'f str {
    let finding = findings.iter().find(|finding| finding["check"] == check);
    finding.unwrap_or_else(|| panic!("{check} in {findings:?}"))["verdict"].as_str().unwrap()
}

#[test]
fn the_doctor_looks_at_a_running_store_and_names_what_must_be_mended() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("data");
    let service = InChild::start(&folder, &[]);
    let (code, findings) = doctor(&folder);
    assert_eq!(code, Some(0), "{findings:?}");
    for check in ["folder", "lock", "events.db", "logs.db", "log.db", "schema", "backlog"] {
        assert_eq!(verdict(&findings, check), "fine", "{findings:?}");
    }
    let lock = findings.iter().find(|finding| finding["check"] == "lock").unwrap();
    assert_eq!(lock["found"], format!("held by process {}", service.id()));
    assert_eq!(service.terminate(), 0);

    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.join("logs.db"), "no database at all, and longer than a header is".repeat(99))
        .unwrap();
    let (code, findings) = doctor(&folder);
    assert_eq!(code, Some(1), "{findings:?}");
    for (check, wanted) in
        [("folder", "mend"), ("logs.db", "mend"), ("events.db", "fine"), ("schema", "fine")]
    {
        assert_eq!(verdict(&findings, check), wanted, "{findings:?}");
    }
}
