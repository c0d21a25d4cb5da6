//! What `sentinel migrate` promises the owner of an Oracle schema, on the stand-in. This module runs the program: once,
//! again, to look only, over what was run by hand, and over a schema that is not ours to touch.

use std::process::{Command, Output};
use std::sync::OnceLock;

use crate::oracle_standin::{self, Standin};

fn migrate(standin: &Standin, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .env_clear()
        .env("ORACLE_CLIENT_LIB_DIR", &standin.library)
        .env("ORACLE_USERNAME", "SENTINEL")
        .env("ORACLE_PASSWORD", "any")
        .arg("--database")
        .arg(format!("oracle://{}", standin.connect_string))
        .arg("migrate")
        .args(arguments)
        .output()
        .expect("the program runs")
}

/// A service of this test's own with the schema in it and nothing else. The schema is made once, by the program.
pub(crate) fn migrated() -> Option<Standin> {
    static MIGRATED: OnceLock<Option<Standin>> = OnceLock::new();
    let migrated = MIGRATED.get_or_init(|| {
        let standin = oracle_standin::start()?;
        let (code, words) = said(&migrate(&standin, &[]));
        assert_eq!(code, Some(0), "{words}");
        Some(standin)
    });
    migrated.as_ref().map(Standin::copy)
}

/// The exit code, and what was said on either stream.
fn said(output: &Output) -> (Option<i32>, String) {
    let words = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    (output.status.code(), words.join("\n"))
}

/// Version, and whether its checksum is known.
fn versions(standin: &Standin) -> String {
    standin.sql(
        "SELECT string_agg(version || ':' || COALESCE(length(checksum), 0), ' ' ORDER BY version) \
         FROM sentinel.sentinel_schema_version",
    )
}

const COMPLETE: &str = "1:64 2:64 3:64 4:64";

#[test]
fn an_empty_schema_is_made_whole_and_a_second_run_changes_nothing() {
    let Some(standin) = oracle_standin::start() else { return };
    let (code, words) = said(&migrate(&standin, &["--check"]));
    assert_eq!(code, Some(1), "{words}");
    assert_eq!(words.matches("would be applied").count(), 4, "{words}");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'sentinel'";
    assert_eq!(standin.sql(tables), "0", "a look changes nothing");

    let (code, words) = said(&migrate(&standin, &[]));
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(words.matches("has been applied").count(), 4, "{words}");
    assert_eq!(standin.sql(tables), "20");
    assert_eq!(versions(&standin), COMPLETE);
    let setting = |name: &str| {
        standin.sql(&format!("SELECT value FROM sentinel.sentinel_setting WHERE name = '{name}'"))
    };
    assert_eq!(setting("queue_name"), "SENTINEL.SENTINEL_QUEUE", "the schema is that of the login");

    let kept = "SELECT md5(string_agg(v::text, ';' ORDER BY version)) FROM sentinel.sentinel_schema_version v";
    let before = standin.sql(kept);
    for arguments in [&["--check"][..], &[]] {
        let (code, words) = said(&migrate(&standin, arguments));
        assert_eq!(code, Some(0), "{words}");
        assert_eq!(words.matches("is up to date").count(), 4, "{words}");
    }
    assert_eq!(standin.sql(kept), before);
}

#[test]
fn scripts_that_were_run_by_hand_are_run_again_and_get_their_checksum() {
    let Some(standin) = oracle_standin::start() else { return };
    assert_eq!(said(&migrate(&standin, &[])).0, Some(0));
    standin
        .sql("UPDATE sentinel.sentinel_schema_version SET checksum = NULL WHERE version IN (2, 4)");
    let (code, words) = said(&migrate(&standin, &["--check"]));
    assert_eq!(code, Some(1), "{words}");
    assert_eq!(words.matches("was run by hand").count(), 2, "{words}");
    let (code, words) = said(&migrate(&standin, &[]));
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(versions(&standin), COMPLETE);
}

#[test]
fn a_script_with_another_text_and_a_schema_of_a_newer_release_are_refused_and_left_alone() {
    let Some(standin) = oracle_standin::start() else { return };
    assert_eq!(said(&migrate(&standin, &[])).0, Some(0));
    let kept = "SELECT checksum FROM sentinel.sentinel_schema_version WHERE version = 2";
    let ours = standin.sql(kept);
    standin.sql(
        "UPDATE sentinel.sentinel_schema_version SET checksum = repeat('0', 64) WHERE version = 2",
    );
    for arguments in [&["--check"][..], &[]] {
        let (code, words) = said(&migrate(&standin, arguments));
        assert_eq!(code, Some(65), "{words}");
        assert!(words.contains("002_sentinel_tables was applied with another text"), "{words}");
        assert_eq!(standin.sql(kept), "0".repeat(64));
    }
    standin.sql(&format!(
        "UPDATE sentinel.sentinel_schema_version SET checksum = '{ours}' WHERE version = 2"
    ));
    standin
        .sql("INSERT INTO sentinel.sentinel_schema_version (version, name) VALUES (99, 'future')");
    let (code, words) = said(&migrate(&standin, &[]));
    assert_eq!(code, Some(65), "{words}");
    assert!(words.contains("version 99") && words.contains("newer release"), "{words}");
}

#[test]
fn a_run_that_broke_off_is_taken_up_again() {
    let Some(standin) = oracle_standin::start() else { return };
    // The third script finds the queue's own package refused.
    let fault = standin.inject("on=OCIStmtExecute text=dbms_aqadm.create_queue( do=ora:1031");
    let (code, words) = said(&migrate(&standin, &[]));
    assert_eq!(code, Some(1), "{words}");
    assert!(standin.hits(&fault) > 0, "{words}");
    assert!(words.contains("003_sentinel_queue, line") && words.contains("ORA-01031"), "{words}");
    assert!(words.contains("000_grants_as_dba.sql"), "it says what to do: {words}");
    assert_eq!(versions(&standin), "1:64 2:64");
    standin.mend(&fault);
    let (code, words) = said(&migrate(&standin, &[]));
    assert_eq!(code, Some(0), "{words}");
    assert_eq!(words.matches("is up to date").count(), 2, "{words}");
    assert_eq!(versions(&standin), COMPLETE);
}
