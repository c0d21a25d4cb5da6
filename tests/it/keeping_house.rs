//! What an operator does with the data: a backup of a service at work that is restored, and the end of a tenant. This
//! module runs the commands of the program on a real folder.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sentinel::domain::process::mark::Mark;
use sentinel::domain::process::{RunRow, State};
use sentinel::service::{Parts, wall_clock};
use serde_json::{Value, json};

use crate::by_hand;
use crate::harness::{Client, InChild, InProcess, envelope, eventually, stop, token};

fn sentinel(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sentinel"));
    command.env_clear().env("SENTINEL_DATABASE", format!("sqlite://{}", folder.display()));
    command.args(arguments).output().unwrap()
}

fn words(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

fn say(client: &mut Client, process: &str, message: &str) {
    let fields = [("X-Sentinel-Process-Id", process)];
    let row = json!({"level": "INFO", "message": message}).to_string();
    client.request("POST", "/internal/log", &fields, row.as_bytes()).expect(202);
}

fn report(client: &mut Client, process: &str, verb: &str) {
    let fields = [("X-Sentinel-Process-Id", process)];
    client.request("POST", &format!("/internal/{verb}"), &fields, b"{}").expect(202);
}

/// Everything in a listing, page by page.
fn listing(client: &mut Client, path: &str, name: &str) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("{path}{cursor}"));
        if page.status == 404 {
            return rows;
        }
        let page = page.expect(200).json();
        rows.extend(page[name].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { return rows };
        cursor = format!("&cursor={next}");
    }
}

#[test]
fn a_backup_of_a_service_at_work_holds_everything_acknowledged_before_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let place = tempfile::tempdir().unwrap();
    let service = InChild::start(folder.path(), &[]);
    let writer = token(folder.path(), "demo", &["sentinel:write"]);
    let mut client = Client::new(service.api, &writer);
    let api = service.api;
    let over = Arc::new(AtomicBool::new(false));
    let load = {
        let (over, writer) = (Arc::clone(&over), writer.clone());
        let work = move || {
            let mut client = Client::new(api, &writer);
            let mut n = 0_u128;
            while !over.load(Ordering::SeqCst) {
                n += 1;
                let stream = format!("load-{}", n % 7);
                let event = envelope(1_000_000 + n, &stream, json!({"n": n.to_string()}));
                client.event(&format!("load-{n}"), &event).expect(202);
                say(&mut client, "loaded", "line");
            }
            n
        };
        std::thread::Builder::new().spawn(work).unwrap()
    };
    for n in 0..200 {
        client.event(&format!("k{n}"), &envelope(n, "s", json!({}))).expect(202);
        say(&mut client, "p", &format!("row {n}"));
    }
    let copy = place.path().join("copy");
    let made = sentinel(folder.path(), &["backup", copy.to_str().unwrap()]);
    assert_eq!(made.status.code(), Some(0), "{}", words(&made));
    over.store(true, Ordering::SeqCst);
    let loaded = load.join().unwrap();
    assert!(loaded > 0, "it was at work");
    service.kill();

    // The folder is lost; the key of development mode comes from elsewhere, as secrets do.
    let restored = place.path().join("restored");
    fs::create_dir(&restored).unwrap();
    for name in ["log.db", "events.db", "logs.db"] {
        fs::copy(copy.join(name), restored.join(name)).unwrap();
    }
    fs::copy(folder.path().join("dev-key.pk8"), restored.join("dev-key.pk8")).unwrap();
    let service = InChild::start(&restored, &[]);
    let mut client = Client::new(service.api, &token(&restored, "demo", &["sentinel:write"]));
    eventually("everything is applied", || {
        let stream = client.get("/v1/streams/s");
        (stream.status == 200 && stream.json()["appliedSeq"] == 200).then_some(())
    });
    let rows = listing(&mut client, "/logs/p?limit=1000", "logs");
    assert_eq!(rows.len(), 200);
    let again = client.event("k7", &envelope(7, "s", json!({}))).expect(202);
    assert_eq!(again.header("idempotency-replayed"), Some("true"), "keys came along");
    let next = client.event("new", &envelope(9_000, "s", json!({}))).expect(202).json();
    assert_eq!(next["streamSeq"], 201, "numbers go on without a gap");
    assert_eq!(service.terminate(), 0);
}

/// An event of each tenant that became a dead letter: the listener is driven by hand, and its merge panics.
fn dead_letters(folder: &Path) {
    let parts = Parts { listener: false, ..Parts::ALL };
    let service = InProcess::start(folder, wall_clock(), parts, &[]);
    for tenant in ["acme", "other"] {
        let mut client = service.client(tenant);
        let fields = [("X-Sentinel-Process-Id", "dead")];
        let body = json!({"metadata": {"secret": format!("{tenant}-dead")}}).to_string();
        client.request("POST", "/internal/start", &fields, body.as_bytes()).expect(202);
    }
    let store = service.service.store();
    let mut session = store.listener().unwrap();
    let (stop, _idle) = stop();
    let claim = session.claim(100, Duration::ZERO, &stop).unwrap();
    assert_eq!(claim.messages.len(), 2);
    let merge = |_: &mut State, _: Mark| -> Vec<RunRow> { panic!("on purpose") };
    let change = by_hand::decide_with(&mut *session, &claim, store.now(), &merge);
    session.settle(claim, change, store.now()).unwrap();
    service.stop();
}

/// Two tenants with the same names.
fn two_tenants(folder: &Path) {
    dead_letters(folder);
    let service = InProcess::start(folder, wall_clock(), Parts::ALL, &[]);
    for tenant in ["acme", "other"] {
        let mut client = service.client(tenant);
        for n in 0..50 {
            let payload = json!({"secret": format!("{tenant}-payload-{n}")});
            client.event(&format!("k{n}"), &envelope(n, "orders", payload)).expect(202);
            say(&mut client, "p", &format!("{tenant}-line-{n}"));
        }
        report(&mut client, "p", "start");
        report(&mut client, "p", "complete");
        // Not by /status, which shows what is acknowledged before it is applied.
        eventually("it is applied", || {
            let last =
                |client: &mut Client, path: &str| client.get(path).json()["appliedSeq"].as_u64();
            let (orders, p) =
                (last(&mut client, "/v1/streams/orders"), last(&mut client, "/v1/streams/p"));
            (orders == Some(50) && p == Some(2)).then_some(())
        });
    }
    service.stop();
}

/// Whether any file below `folder` holds this text.
fn holds(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if fs::read(&path).unwrap().windows(text.len()).any(|at| at == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// What one tenant sees of its data.
fn sights(client: &mut Client) -> Vec<Value> {
    let mut rows = listing(client, "/v1/events?limit=1000", "events");
    rows.extend(listing(client, "/logs/p?limit=1000", "logs"));
    rows.extend(listing(client, "/processes/p/runs?limit=1000", "runs"));
    rows.extend(listing(client, "/v1/dead-letters?limit=1000", "dead_letters"));
    rows
}

#[test]
fn a_purged_tenant_is_gone_from_every_file_and_the_others_notice_nothing() {
    let folder = tempfile::tempdir().unwrap();
    two_tenants(folder.path());
    let before = {
        let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
        let refused = sentinel(folder.path(), &["purge", "--tenant", "acme", "--yes"]);
        assert_eq!(refused.status.code(), Some(75), "{}", words(&refused));
        let before = seen_by(&service, "other");
        service.stop();
        before
    };
    assert!(!holds(folder.path(), "acme-payload-7").is_empty());

    let looked = words(&sentinel(folder.path(), &["purge", "--tenant", "acme"]));
    assert!(looked.contains("nothing was changed"), "{looked}");
    assert!(looked.contains("1 processes, 1 runs, 1 dead letters, 50 log rows"), "{looked}");
    assert!(!holds(folder.path(), "acme-payload-7").is_empty());

    let done = sentinel(folder.path(), &["purge", "--tenant", "acme", "--yes"]);
    assert_eq!(done.status.code(), Some(0), "{}", words(&done));
    assert_eq!(
        words(&done).trim_start_matches("removed of tenant acme: ").trim_end(),
        looked.trim_start_matches("there is of tenant acme: ").split('\n').next().unwrap()
    );
    assert_eq!(holds(folder.path(), "acme"), Vec::<String>::new());
    let again = words(&sentinel(folder.path(), &["purge", "--tenant", "acme", "--yes"]));
    assert!(
        again.contains("0 events, 0 processes, 0 runs, 0 dead letters, 0 log rows, 0"),
        "{again}"
    );

    // Made anew from snapshot and log, nothing comes back and nothing is missing.
    let rebuilt = sentinel(folder.path(), &["rebuild"]);
    assert_eq!(rebuilt.status.code(), Some(0), "{}", words(&rebuilt));
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    assert_eq!(seen_by(&service, "other"), before);
    let mut acme = service.client("acme");
    acme.get("/status/p").expect(404);
    acme.get("/v1/streams/orders").expect(404);
    assert!(listing(&mut acme, "/v1/events?limit=100", "events").is_empty());
    // Its keys are forgotten, and its numbers begin anew.
    let first = acme.event("k7", &envelope(7, "orders", json!({"new": true}))).expect(202);
    assert_eq!(
        (first.header("idempotency-replayed"), &first.json()["streamSeq"]),
        (None, &json!(1))
    );
    say(&mut acme, "p", "hello");
    let rows = listing(&mut acme, "/logs/p?limit=100", "logs");
    assert_eq!((rows.len(), &rows[0]["message"]), (1, &json!("hello")));
    let mut other = service.client("other");
    let next = other.event("next", &envelope(99, "orders", json!({}))).expect(202).json();
    assert_eq!(next["streamSeq"], 51);
    let replayed = other.event("k7", &envelope(7, "orders", json!({"secret": "other-payload-7"})));
    assert_eq!(replayed.expect(202).header("idempotency-replayed"), Some("true"));
    service.stop();
}

fn seen_by(service: &InProcess, tenant: &str) -> BTreeSet<String> {
    let mut client = service.client(tenant);
    let rows = sights(&mut client);
    assert!(rows.len() > 100, "{}", rows.len());
    rows.iter().map(Value::to_string).collect()
}

#[test]
fn a_purge_makes_no_store_where_there_is_none() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("typo");
    let refused = sentinel(&folder, &["purge", "--tenant", "acme", "--yes"]);
    assert_eq!(refused.status.code(), Some(69), "{}", words(&refused));
    assert!(words(&refused).contains("holds no store"), "{}", words(&refused));
    assert!(!folder.exists());
}

#[test]
fn what_a_backup_holds_is_for_its_owner_alone_and_its_refusals_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let place = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let copy = place.path().join("a/copy");
    let to = copy.to_str().unwrap();
    for command in [&["backup", to][..], &["rebuild"], &["purge", "--tenant", "demo"]] {
        let refused = sentinel(&data, command);
        assert_eq!(refused.status.code(), Some(69), "{}", words(&refused));
        assert!(words(&refused).contains("holds no store"), "{}", words(&refused));
        assert!(!data.exists() && !copy.exists(), "nothing is made for a mistake");
    }
    assert_eq!(sentinel(&data, &["migrate", "--check"]).status.code(), Some(1));
    assert!(!data.exists(), "a look changes nothing");
    let service = InProcess::start(&data, wall_clock(), Parts::ALL, &[]);
    service.client("demo").event("k", &envelope(1, "s", json!({}))).expect(202);
    let made = sentinel(&data, &["backup", to]);
    assert_eq!(made.status.code(), Some(0), "{}", words(&made));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&copy), 0o700);
    let files: Vec<_> = fs::read_dir(&copy).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 4, "{files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
    let again = sentinel(&data, &["backup", to]);
    assert_eq!(again.status.code(), Some(1), "{}", words(&again));
    assert!(words(&again).contains("name a folder that is not there yet"), "{}", words(&again));
    service.stop();
}

#[test]
fn what_root_mends_the_user_of_the_service_can_still_write() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can mend for others");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let service = InProcess::start(&data, wall_clock(), Parts::ALL, &[]);
    service.client("demo").event("k", &envelope(1, "s", json!({}))).expect(202);
    service.stop();
    let outside = folder.path().join("outside");
    fs::write(&outside, "root's own").unwrap();
    let nobody = 65_534;
    chown(&data, Some(nobody), Some(nobody)).unwrap();
    for entry in fs::read_dir(&data).unwrap() {
        chown(entry.unwrap().path(), Some(nobody), Some(nobody)).unwrap();
    }
    fs::remove_file(data.join("sentinel.lock")).unwrap();
    // What the other user may have put there to get hold of a file of root's.
    fs::hard_link(&outside, data.join("events.db.second-name")).unwrap();
    symlink(&outside, data.join("events.db.link")).unwrap();
    for command in [&["rebuild"][..], &["purge", "--tenant", "other", "--yes"]] {
        let done = sentinel(&data, command);
        assert_eq!(done.status.code(), Some(0), "{}", words(&done));
    }
    let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    for name in ["events.db", "log.db", "logs.db", "sentinel.lock", "snapshots"] {
        assert_eq!(owner(&data.join(name)), nobody, "{name}");
    }
    let mut snapshots = fs::read_dir(data.join("snapshots")).unwrap();
    assert!(snapshots.all(|entry| owner(&entry.unwrap().path()) == nobody));
    assert_eq!(owner(&outside), 0, "a link gives nothing away");
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(data.join("snapshots"), &elsewhere).unwrap();
    fs::write(elsewhere.join("root's own"), "").unwrap();
    symlink(&elsewhere, data.join("snapshots")).unwrap();
    let done = sentinel(&data, &["migrate"]);
    assert_eq!(done.status.code(), Some(0), "{}", words(&done));
    assert_eq!(owner(&elsewhere.join("root's own")), 0, "nor does a link to a folder");
}
