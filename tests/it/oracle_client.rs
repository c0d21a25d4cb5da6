//! What an Oracle address promises where there is no database: one clear line and an exit code. This module needs no
//! client library, which is the point.

use std::process::{Command, Output};

fn sentinel(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .env_clear()
        // An empty folder: whatever this machine has elsewhere, there is no client library here.
        .env("ORACLE_CLIENT_LIB_DIR", folder.path())
        .env("SENTINEL_HTTP_PORT", "0")
        .env("PROMETHEUS_METRICS_PORT", "0")
        .envs(variables.iter().copied())
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_missing_client_library_is_one_clear_line_and_exit_69() {
    let production = [
        ("OAUTH2_ISSUER_URI", "https://idp.example.com"),
        ("OAUTH2_JWK_SET_URI", "https://idp.example.com/keys"),
        ("SENTINEL_LISTEN_ADDRESS", "127.0.0.1"),
    ];
    for command in ["serve", "migrate"] {
        let output =
            sentinel(&["--database", "oracle://db.invalid:1521/none", command], &production);
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(69), "{command}: {words}");
        let told: Vec<&str> =
            words.lines().filter(|line| line.contains("Instant Client")).collect();
        assert_eq!(told.len(), 1, "{command}: {words}");
        assert!(told[0].contains("ORACLE_CLIENT_LIB_DIR"), "{command}: {words}");
    }
}

#[test]
fn a_command_for_files_is_refused_where_the_store_is_a_database() {
    let production =
        [("OAUTH2_ISSUER_URI", "https://idp.example.com"), ("SENTINEL_PLAINTEXT", "allow")];
    for command in [&["rebuild"][..], &["backup", "/nowhere"]] {
        let mut arguments = vec!["--database", "oracle://ALIAS"];
        arguments.extend(command);
        let output = sentinel(&arguments, &production);
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{command:?}: {words}");
        assert!(words.contains("Oracle database"), "{words}");
    }
}

#[test]
fn a_password_in_an_address_is_refused_and_not_repeated() {
    let output = sentinel(&["--database", "oracle://scott:tiger@db:1521/s", "migrate"], &[]);
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{words}");
    assert!(words.contains("ORACLE_PASSWORD_FILE") && !words.contains("tiger"), "{words}");
}
