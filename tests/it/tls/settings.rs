//! What `sentinel check-config` says of files: good ones in silence, doubtful ones in a warning, and each of those with
//! which no service could start under its variable, with what to do.

use std::fs;
use std::process::{Command, Output};

use rcgen::date_time_ymd;

use super::{Authority, Surroundings, write};

fn check(variables: &[(&str, String)]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_sentinel"));
    program
        .arg("check-config")
        .env_clear()
        .envs(variables.iter().map(|(name, value)| (name, value)));
    program.output().unwrap()
}

/// What is said on stderr, if the exit code is this one.
fn said(around: &Surroundings, code: i32) -> String {
    let output = check(&around.variables("optional"));
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{words}");
    words
}

#[test]
fn good_files_are_shown_and_nothing_is_said() {
    let around = Surroundings::new();
    let output = check(&around.variables("required"));
    let (printed, words) = (String::from_utf8(output.stdout).unwrap(), output.stderr);
    assert_eq!((output.status.code(), &*words), (Some(0), &b""[..]));
    for file in ["cert.pem", "key.pem", "ca.pem"] {
        assert!(printed.contains(&around.path(file)), "{printed}");
    }
    assert!(!printed.contains("PRIVATE KEY"), "the file is named, what is in it is not shown");
}

#[test]
fn each_file_that_is_no_good_is_blamed_under_its_variable() {
    let key = Authority::new().sign("other").1.serialize_pem();
    let sealed =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let cases: [(&str, Option<&str>, &str, &str); 9] = [
        ("cert.pem", None, "SENTINEL_TLS_CERT_FILE", "cannot read"),
        ("cert.pem", Some(""), "SENTINEL_TLS_CERT_FILE", "holds no certificate"),
        (
            "cert.pem",
            Some("-----BEGIN CERTIFICATE-----\n!\n"),
            "SENTINEL_TLS_CERT_FILE",
            "is no good PEM file",
        ),
        ("key.pem", None, "SENTINEL_TLS_KEY_FILE", "cannot read"),
        ("key.pem", Some("no key"), "SENTINEL_TLS_KEY_FILE", "holds no private key"),
        ("key.pem", Some(sealed), "SENTINEL_TLS_KEY_FILE", "an encrypted one cannot be used"),
        ("key.pem", Some(&key), "SENTINEL_TLS_KEY_FILE", "is not the key of the first certificate"),
        ("ca.pem", None, "SENTINEL_TLS_CLIENT_CA_FILE", "cannot read"),
        ("ca.pem", Some("nobody"), "SENTINEL_TLS_CLIENT_CA_FILE", "holds no certificate"),
    ];
    for (file, content, variable, words) in cases {
        let around = Surroundings::new();
        match content {
            None => fs::remove_file(around.path(file)).unwrap(),
            Some(content) => fs::write(around.path(file), content).unwrap(),
        }
        let said = said(&around, 78);
        let about: Vec<&str> = said.lines().filter(|line| line.contains(variable)).collect();
        assert_eq!(about.len(), 1, "once: {said}");
        assert!(about[0].contains(words) && about[0].contains(&around.path(file)), "{said}");
    }
}

#[test]
fn a_certificate_that_clients_will_refuse_is_pointed_out_and_the_service_may_start() {
    for (from, until, words) in [
        (2020, 2021, "has expired; clients will refuse it: renew it"),
        (2090, 2099, "is not good yet; clients will refuse it: check the clock"),
    ] {
        let around = Surroundings::new();
        let pair = around.authority.sign_with("late", |params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
        });
        write(around.folder.path(), &pair);
        let said = said(&around, 0);
        assert_eq!(said.matches(words).count(), 1, "{said}");
        assert!(said.contains("SENTINEL_TLS_CERT_FILE"), "{said}");
    }
}

#[test]
fn settings_that_need_each_other_are_asked_for() {
    let around = Surroundings::new();
    let cases = [
        ("SENTINEL_TLS_KEY_FILE", "set SENTINEL_TLS_KEY_FILE"),
        ("SENTINEL_TLS_CERT_FILE", "set SENTINEL_TLS_CERT_FILE"),
        ("SENTINEL_TLS_CLIENT_CA_FILE", "set SENTINEL_TLS_CLIENT_CA_FILE"),
    ];
    for (left_out, words) in cases {
        let mut variables = around.variables("required");
        variables.retain(|(name, _)| *name != left_out);
        let output = check(&variables);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(words), "{said}");
    }
}
