//! The client commands against a service that wants a certificate: each does its work with one, and says what is
//! missing without.

use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::{Authority, House, write};

/// A service that wants a certificate, and the files of one who has one.
struct Scene {
    house: House,
}

impl Scene {
    fn start() -> Self {
        let house = House::start("required");
        let folder = house.around.folder.path();
        fs::write(folder.join("authority.pem"), house.around.authority.certificate.pem()).unwrap();
        fs::create_dir(folder.join("client")).unwrap();
        write(&folder.join("client"), &house.pair);
        Self { house }
    }

    /// A command that knows the service and trusts it.
    fn without(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_sentinel"));
        program.env_clear().args(arguments).env("PATH", std::env::var_os("PATH").unwrap());
        program.env("SENTINEL_URL", format!("https://{}", self.house.api()));
        program.env("SENTINEL_CA_FILE", self.house.around.path("authority.pem"));
        program.env("SENTINEL_TOKEN", &self.house.token).stdin(Stdio::null());
        program
    }

    /// The same with a certificate.
    fn with(&self, arguments: &[&str]) -> Command {
        let mut program = self.without(arguments);
        program.env("SENTINEL_CLIENT_CERT_FILE", self.house.around.path("client/cert.pem"));
        program.env("SENTINEL_CLIENT_KEY_FILE", self.house.around.path("client/key.pem"));
        program
    }
}

/// The exit code, stdout and stderr.
fn end(mut program: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = program.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// `sentinel run` with a command that fails, which goes on telling for so long.
fn run(flush_timeout: &'static str) -> [&'static str; 9] {
    let script = "echo one; echo two; echo three >&2; exit 3";
    ["run", "--name", "nightly", "--flush-timeout", flush_timeout, "--", "sh", "-c", script]
}

#[test]
fn a_watched_command_is_told_of_and_its_rows_are_followed() {
    let scene = Scene::start();
    let (code, out, words) = end(scene.with(&run("60s")));
    assert_eq!((code, &*out, &*words), (Some(3), "one\ntwo\n", "three\n"));
    let mut guest = scene.house.guest();
    let status = guest.get("/status/nightly", &scene.house.token).expect(200).json();
    assert_eq!(status["status"], "FAILED", "{status}");

    let (code, out, words) = end(scene.with(&["tail", "nightly", "--json", "--until-end"]));
    assert_eq!(code, Some(0), "{words}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut messages: Vec<&str> =
        lines.iter().filter_map(|line| line["log"]["message"].as_str()).collect();
    messages.sort_unstable();
    assert_eq!(messages, ["one", "three", "two"]);
    assert!(lines.iter().any(|line| line["status"]["status"] == "FAILED"), "{out}");

    let (code, out, words) = end(scene.with(&["top", "--once"]));
    assert_eq!(code, Some(0), "{words}");
    assert!(out.contains("0 unfinished"), "{out}");
    scene.house.stop();
}

#[test]
fn a_probe_is_answered_and_load_is_taken() {
    let scene = Scene::start();
    for arguments in [&["health"][..], &["health", "--ready"]] {
        let (code, out, words) = end(scene.with(arguments));
        assert_eq!(code, Some(0), "{words}");
        assert_eq!(out, format!("https://{} is well\n", scene.house.api()));
    }
    let summary = scene.house.around.path("summary.json");
    for mode in ["constant", "events", "status", "logs", "idle"] {
        let (code, _, words) = end(scene.with(&[
            "load",
            "--mode",
            mode,
            "--connections",
            "4",
            "--requests",
            "200",
            "--duration",
            "500ms",
            "--json",
            &summary,
        ]));
        assert_eq!(code, Some(0), "{mode}: {words}");
        let summary: Value = serde_json::from_slice(&fs::read(&summary).unwrap()).unwrap();
        assert!(summary["accepted"].as_u64().unwrap() >= 8, "{mode}: {summary}");
    }
    let mut guest = scene.house.guest();
    scene.house.is_well(&mut guest);
    scene.house.stop();
}

#[test]
fn without_a_certificate_each_command_says_what_is_missing() {
    let scene = Scene::start();
    let load = ["load", "--mode", "constant", "--connections", "2", "--duration", "500ms"];
    let idle = ["load", "--mode", "idle", "--connections", "2", "--duration", "500ms"];
    let strangers = scene.house.around.folder.path().join("stranger");
    fs::create_dir(&strangers).unwrap();
    write(&strangers, &Authority::new().sign("stranger"));
    for arguments in [&["health"][..], &["tail", "nightly"], &["top", "--once"], &load, &idle] {
        for stranger in [false, true] {
            let mut program = scene.without(arguments);
            if stranger {
                program.env("SENTINEL_CLIENT_CERT_FILE", strangers.join("cert.pem"));
                program.env("SENTINEL_CLIENT_KEY_FILE", strangers.join("key.pem"));
            }
            let (code, out, words) = end(program);
            assert_eq!((code, &*out), (Some(1), ""), "{arguments:?}: {words}");
            assert!(words.contains("SENTINEL_CLIENT_CERT_FILE"), "{arguments:?}: {words}");
            assert!(!words.contains(&scene.house.token), "{words}");
        }
    }
    // A command is run all the same, with its own output and exit code, and what was not told is told at the end.
    let (code, out, words) = end(scene.without(&run("1s")));
    assert_eq!((code, &*out), (Some(3), "one\ntwo\n"));
    assert!(words.contains("three\n") && words.contains("SENTINEL_CLIENT_CERT_FILE"), "{words}");
    scene.house.stop();
}

#[test]
fn a_service_that_nobody_vouches_for_gets_no_token() {
    let scene = Scene::start();
    let folder = scene.house.around.folder.path();
    fs::write(folder.join("authority.pem"), Authority::new().certificate.pem()).unwrap();
    let load = ["load", "--mode", "constant", "--connections", "2", "--duration", "500ms"];
    for arguments in [&["health"][..], &["tail", "nightly"], &load] {
        let (code, _, words) = end(scene.with(arguments));
        assert_eq!(code, Some(1), "{arguments:?}: {words}");
        assert!(words.contains("SENTINEL_CA_FILE"), "{arguments:?}: {words}");
    }
    scene.house.stop();
}
