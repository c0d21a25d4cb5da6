//! No space and no right to write: 503 and words, nothing acknowledged is lost, and it passes by itself.
//!
//! A small file system is mounted for it, which needs the right to mount; without it the tests say loudly that they
//! were skipped.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::harness::{Client, InChild, envelope, eventually, token};

/// A small file system in memory, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(megabytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if done {
            return Some(Self(folder));
        }
        println!(
            "SKIPPED: no right to mount a small file system here, so a full disk was not tested"
        );
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, option: &str) {
        let done = Command::new("mount")
            .args(["-o", &format!("remount,{option}")])
            .arg(self.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

fn post(client: &mut Client, id: u128) -> u16 {
    client.event(&format!("k{id}"), &envelope(id, "s", json!({"filler": "x".repeat(2000)}))).status
}

/// `/ready` with its status and text.
fn ready(client: &mut Client) -> (u16, String) {
    let response = client.get("/ready");
    (response.status, response.text())
}

#[test]
fn a_full_disk_is_503_with_words_and_passes_by_itself() {
    let Some(disk) = SmallDisk::mount(24) else { return };
    let folder = disk.path().join("data");
    let service = InChild::start(&folder, &[("SENTINEL_MIN_FREE_BYTES", "4194304")]);
    let token = token(&folder, "demo", &["sentinel:write"]);
    let mut client = Client::new(service.api, &token);
    let mut acknowledged = 0;
    for id in 0..20 {
        assert_eq!(post(&mut client, id), 202);
        acknowledged += 1;
    }
    // Somebody else fills the disk.
    let ballast = disk.path().join("ballast");
    let _ = std::fs::write(&ballast, vec![1u8; 64 << 20]);
    eventually("the doors close", || {
        let status = post(&mut client, 1000 + acknowledged);
        if status == 202 {
            acknowledged += 1;
        }
        (status == 503).then_some(())
    });
    let (status, words) = eventually("/ready tells why", || {
        Some(ready(&mut client)).filter(|(status, _)| *status == 503)
    });
    assert!(words.contains("space") || words.contains("disk"), "{status} {words}");
    std::fs::remove_file(&ballast).unwrap();
    eventually("it recovers by itself", || (post(&mut client, 5000) == 202).then_some(()));
    eventually("/ready is well again", || (ready(&mut client).0 == 200).then_some(()));
    let stream = eventually("everything is applied", || {
        let response = client.get("/v1/streams/s/events?limit=1000");
        let events = response.json()["events"].as_array().cloned().unwrap_or_default();
        (events.len() as u128 > acknowledged).then_some(events)
    });
    assert_eq!(
        stream.len() as u128,
        acknowledged + 1,
        "nothing acknowledged is lost, nothing refused is there"
    );
    assert_eq!(service.terminate(), 0);
}

#[test]
fn a_folder_that_cannot_be_written_is_503_with_words_until_it_can() {
    let Some(disk) = SmallDisk::mount(64) else { return };
    let folder = disk.path().join("data");
    let service = InChild::start(&folder, &[]);
    let token = token(&folder, "demo", &["sentinel:write"]);
    assert_eq!(post(&mut Client::new(service.api, &token), 1), 202);
    assert_eq!(service.terminate(), 0);
    disk.remount("ro");
    // The port must be known beforehand, since the service opens it twice.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let service = InChild::start_on(&folder, port, &[]);
    let mut client = Client::new(service.api, &token);
    client.get("/health").expect(200);
    assert_eq!(post(&mut client, 2), 503);
    let (status, words) = ready(&mut client);
    assert_eq!(status, 503);
    assert!(words.contains("read-only") || words.contains("written"), "{words}");
    // Nor does a page learn from it where the store is.
    let rebound = crate::development::ask(service.api, "GET /ready", Some("evil.example"), "");
    assert_eq!(rebound.status, 421);
    disk.remount("rw");
    eventually("it recovers by itself", || {
        let mut client = Client::new(service.api, &token);
        let event = envelope(3, "s", json!({})).to_string();
        let fields = [("Content-Type", "application/json"), ("Idempotency-Key", "k3")];
        let answer = client.try_request("POST", "/v1/events", &fields, event.as_bytes());
        answer.is_ok_and(|answer| answer.status == 202).then_some(())
    });
    let mut client = Client::new(service.api, &token);
    eventually("nothing acknowledged is lost", || {
        let events =
            client.get("/v1/streams/s/events").json()["events"].as_array().map_or(0, Vec::len);
        (events == 2).then_some(())
    });
    assert_eq!(service.terminate(), 0);
}
