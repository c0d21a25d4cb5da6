//! Files that are renewed while connections are open. Whoever is connected goes on as it was; newcomers see the new
//! certificate, whether somebody tells the service of it or not; files that are no good change nothing.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::process::Signal;

use super::{Authority, House, World};

const READ: &str = "the certificate of the API port has been read again";
const KEPT: &str =
    "the certificate of the API port stays as it was, because the new files are no good";

#[test]
fn new_files_are_shown_to_new_connections_and_broken_ones_change_nothing() {
    let world = World::start("optional");
    let mut open = world.connect(None);
    open.get("/health", "").expect(200);
    let first = open.shown();
    world.around.authority.write(world.around.folder.path(), "second");
    world.service.service.look_at_certificates();
    let mut new = world.connect(None);
    new.get("/health", "").expect(200);
    let second = new.shown();
    assert_ne!(first, second);
    open.get("/health", "").expect(200);
    fs::write(world.around.folder.path().join("key.pem"), "no key").unwrap();
    world.service.service.reload_certificates();
    let mut newer = world.connect(None);
    newer.get("/health", "").expect(200);
    assert_eq!(newer.shown(), second);
    for tls in [&mut open, &mut new] {
        tls.get("/health", "").expect(200);
    }
    world.service.stop();
}

#[test]
fn sighup_shows_new_files_to_newcomers_and_lets_everybody_else_go_on() {
    let house = House::start("optional");
    let folder = house.around.folder.path();
    let mut open = house.guest();
    let first = open.shown();
    let second = house.around.authority.write(folder, "second");
    house.service.signal(Signal::HUP);
    house.service.says(READ);
    assert_eq!(house.guest().shown(), second);
    assert_eq!(open.get("/processes", &house.token).expect(200).header("connection"), None);
    assert_eq!(open.shown(), first);
    // The signal alone is enough: nothing has changed that a look could see.
    house.service.signal(Signal::HUP);
    house.service.says(READ);

    for broken in ["no key", ""] {
        fs::write(folder.join("key.pem"), broken).unwrap();
        house.service.signal(Signal::HUP);
        let words = house.service.says(KEPT);
        assert_eq!(words["level"], "ERROR");
        assert!(words["msg"].as_str().unwrap().contains("key.pem holds no private key"), "{words}");
        assert_eq!(house.guest().shown(), second);
        open.get("/processes", &house.token).expect(200);
    }
    // A key that belongs to another certificate, and one that is not there.
    let other = house.around.authority.sign("other");
    fs::write(folder.join("key.pem"), other.1.serialize_pem()).unwrap();
    house.service.signal(Signal::HUP);
    let words = house.service.says("is not the key of the first certificate")["msg"].clone();
    assert!(words.as_str().unwrap().starts_with(KEPT), "{words}");
    fs::remove_file(folder.join("key.pem")).unwrap();
    house.service.signal(Signal::HUP);
    house.service.says("cannot read");
    assert_eq!(house.guest().shown(), second);

    let third = house.around.authority.write(folder, "third");
    house.service.signal(Signal::HUP);
    house.service.says(READ);
    assert_eq!(house.guest().shown(), third);
    open.get("/processes", &house.token).expect(200);
    assert_eq!(open.shown(), first);
    house.stop();
}

#[test]
fn new_files_are_seen_without_a_word_also_when_a_link_is_swapped() {
    // As a mounted secret of Kubernetes is renewed: a folder with both files, and a link to it that is renamed.
    let folders = ["first", "second", "broken"];
    let house = House::start_with("optional", |around| {
        let root = around.folder.path();
        for folder in folders {
            fs::create_dir(root.join(folder)).unwrap();
            around.authority.write(&root.join(folder), folder);
        }
        fs::write(root.join("broken/cert.pem"), "-----BEGIN CERTIFICATE-----\nx\n").unwrap();
        symlink("first", root.join("current")).unwrap();
        vec![
            ("SENTINEL_TLS_CERT_FILE", around.path("current/cert.pem")),
            ("SENTINEL_TLS_KEY_FILE", around.path("current/key.pem")),
        ]
    });
    let root = house.around.folder.path();
    let swap = |folder: &str| {
        symlink(folder, root.join("next")).unwrap();
        fs::rename(root.join("next"), root.join("current")).unwrap();
    };
    let mut open = house.guest();
    let first = open.shown();
    swap("second");
    house.service.says(READ);
    let second = house.guest().shown();
    assert_ne!(first, second);
    open.get("/processes", &house.token).expect(200);
    swap("broken");
    house.service.says(KEPT);
    assert_eq!(house.guest().shown(), second);
    open.get("/processes", &house.token).expect(200);
    // Who may come in is renewed in the same way.
    let others = Authority::new();
    fs::write(root.join("ca.pem"), others.certificate.pem()).unwrap();
    swap("first");
    house.service.says(READ);
    house.connect(Some(&house.pair)).try_get("/health", "").unwrap_err();
    let mut known = house.connect(Some(&others.sign("billing")));
    known.get("/processes", &house.token).expect(200);
    assert_eq!(known.shown(), first);
    // Who is in stays in.
    open.get("/processes", &house.token).expect(200);
    house.stop();
}
