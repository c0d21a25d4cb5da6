//! What no Oracle server is here to say about `sql/oracle/`. This module runs the grammar gate where node is at hand,
//! and reads the scripts as text for what the rest of the program and its callers rely on.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tidy::files;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn script(name: &str) -> String {
    fs::read_to_string(root().join("sql/oracle").join(name)).unwrap()
}

/// The scripts themselves, without the statements of the service.
fn scripts() -> Vec<(PathBuf, String)> {
    let folder = Path::new("sql/oracle");
    files("sql/oracle", "sql")
        .into_iter()
        .filter(|(path, _)| path.parent() == Some(folder))
        .collect()
}

#[test]
fn every_oracle_statement_is_one_by_oracles_grammar() {
    let folder = root().join("tests/plsql");
    let node = Command::new("node").arg("--version").output();
    if !node.is_ok_and(|answer| answer.status.success()) || !folder.join("node_modules").is_dir() {
        // Where the gate has to run, a skip is a failure.
        assert!(
            std::env::var_os("SENTINEL_TEST_REQUIRE_PLSQL").is_none(),
            "node or tests/plsql/node_modules is missing: run npm ci in tests/plsql"
        );
        // Not eprintln, which the test program keeps to itself when a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: sql/oracle is not parsed: install node and run npm ci in tests/plsql"
        );
        return;
    }
    let answer = Command::new("node").arg("check.mjs").current_dir(&folder).output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr));
    assert!(answer.status.success(), "{said}{complained}");
}

#[test]
fn the_scripts_come_in_their_order_and_none_is_missing() {
    let names: Vec<_> = scripts()
        .into_iter()
        .map(|(path, _)| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(
        names,
        [
            "000_grants_as_dba.sql",
            "001_sentinel_types.sql",
            "002_sentinel_tables.sql",
            "003_sentinel_queue.sql",
            "004_sentinel_pkg.sql",
            "005_row_security.sql",
            "999_uninstall.sql",
        ]
    );
}

/// The value that a script gives a variable where nobody says otherwise.
fn default<'t>(text: &'t str, variable: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(&format!("DEFINE {variable} = ")))
}

#[test]
fn a_variable_has_one_default_in_all_scripts() {
    let mut variables = BTreeSet::new();
    for (path, text) in scripts() {
        for line in text.lines().filter_map(|line| line.strip_prefix("DEFINE ")) {
            let (name, value) = line.split_once(" = ").expect("DEFINE name = value");
            for (other, text) in scripts() {
                let known = default(&text, name);
                assert!(
                    known.is_none_or(|known| known == value),
                    "{name} is {value} in {} and {known:?} in {}",
                    path.display(),
                    other.display()
                );
            }
            variables.insert(name.to_string());
        }
    }
    for wanted in ["sentinel_owner", "sentinel_service", "sentinel_producer", "sentinel_tablespace"]
    {
        assert!(variables.contains(wanted), "{wanted}");
    }
}

/// The tables that 002 makes.
fn tables() -> BTreeSet<String> {
    let text = script("002_sentinel_tables.sql");
    let made = text.lines().filter_map(|line| line.strip_prefix("CREATE TABLE "));
    made.map(|rest| rest.trim_end_matches(" (").to_string()).collect()
}

/// What stands in quotes after `opening`, up to the next parenthesis that closes, in lower case.
fn listed(text: &str, opening: &str) -> BTreeSet<String> {
    let list = text.split_once(opening).unwrap_or_else(|| panic!("{opening}")).1;
    let list = list.split_once(')').unwrap().0;
    list.split('\'').skip(1).step_by(2).map(str::to_lowercase).collect()
}

#[test]
fn every_table_is_granted_named_for_the_service_and_taken_away_again() {
    let tables = tables();
    assert_eq!(tables.len(), 20, "{tables:?}");
    assert_eq!(listed(&script("002_sentinel_tables.sql"), "AND table_name IN ("), tables);
    assert_eq!(listed(&script("999_uninstall.sql"), "SYS.ODCIVARCHAR2LIST("), tables);

    let grants = script("004_sentinel_pkg.sql");
    let mut granted = listed(&grants, "SYS.ODCIVARCHAR2LIST(");
    assert!(granted.insert("sentinel_schema_version".to_string()), "that one is only read");
    assert_eq!(granted, tables);

    let mut named = tables.clone();
    named.extend(["sentinel_pkg", "sentinel_svc"].map(String::from));
    assert_eq!(listed(&script("000_grants_as_dba.sql"), "SYS.ODCIVARCHAR2LIST("), named);
}

#[test]
fn row_security_guards_every_table_that_knows_tenants() {
    let text = script("002_sentinel_tables.sql");
    let mut with_tenant = BTreeSet::new();
    for table in text.split("\nCREATE TABLE ").skip(1) {
        let (name, columns) = table.split_once(" (").unwrap();
        let columns = columns.split_once("]'").unwrap().0;
        if columns.lines().any(|line| line.trim_start().starts_with("tenant_id ")) {
            with_tenant.insert(name.to_string());
        }
    }
    assert_eq!(listed(&script("005_row_security.sql"), "SYS.ODCIVARCHAR2LIST("), with_tenant);
}

/// The parameters of a subprogram in the specification of a package: name and whether it has a default.
fn parameters(package: &str, subprogram: &str) -> Vec<(String, bool)> {
    let text = script("004_sentinel_pkg.sql");
    let spec = text
        .split_once(&format!("CREATE OR REPLACE PACKAGE {package} "))
        .unwrap()
        .1
        .split_once(&format!("\nEND {package};"))
        .unwrap()
        .0;
    let declaration = [format!("PROCEDURE {subprogram}("), format!("FUNCTION {subprogram}(")]
        .iter()
        .find_map(|opening| spec.split_once(opening.as_str()))
        .unwrap_or_else(|| panic!("{package}.{subprogram}"))
        .1;
    let list = declaration.split_once(')').unwrap().0;
    list.split(',')
        .map(|one| {
            let name = one.split_whitespace().next().unwrap().to_string();
            (name, one.contains(" DEFAULT "))
        })
        .collect()
}

fn names(package: &str, subprogram: &str) -> Vec<String> {
    parameters(package, subprogram).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn parameters_have_the_names_and_the_order_that_callers_use() {
    let wanted: [(&str, &[&str]); 12] = [
        (
            "start_process",
            &[
                "p_package_name",
                "p_procedure_name",
                "p_tenant_id",
                "p_correlation_id",
                "p_metadata",
                "p_process_id",
            ],
        ),
        ("start_proc", &["p_package_name", "p_procedure_name", "p_tenant_id"]),
        ("update_progress", &["p_process_id", "p_current_step", "p_progress_pct", "p_metadata"]),
        ("heartbeat", &["p_process_id", "p_status_message"]),
        ("complete_process", &["p_process_id", "p_result"]),
        ("fail_process", &["p_process_id", "p_error_code", "p_error_message", "p_stack_trace"]),
        ("fail_current", &["p_process_id"]),
        ("log_debug", &["p_process_id", "p_message", "p_details"]),
        ("log_info", &["p_process_id", "p_message", "p_details"]),
        ("log_warn", &["p_process_id", "p_message", "p_details"]),
        ("log_error", &["p_process_id", "p_message", "p_details", "p_stack_trace"]),
        ("notify_sentinel", &["p_event_type", "p_process_id", "p_tenant_id", "p_payload"]),
    ];
    for (subprogram, parameters) in wanted {
        assert_eq!(names("sentinel_pkg", subprogram), parameters, "{subprogram}");
    }
    assert_eq!(names("sentinel_svc", "dequeue_batch"), ["p_max", "p_wait_s", "p_cur"]);
    assert_eq!(names("sentinel_svc", "sweep_exceptions"), ["p_max", "p_cur"]);
    assert_eq!(
        names("sentinel_svc", "enqueue"),
        ["p_event_id", "p_event_type", "p_process_id", "p_tenant_id", "p_priority", "p_payload"]
    );
}

#[test]
fn the_caller_of_the_documentation_calls_what_is_there() {
    let text = fs::read_to_string(root().join("docs/oracle.md")).unwrap();
    let caller = text
        .split("```sql\n")
        .skip(1)
        .filter_map(|block| block.split_once("```"))
        .find(|(block, _)| block.contains("PROCEDURE create_contract"))
        .expect("docs/oracle.md shows CONTRACT_PKG.CREATE_CONTRACT")
        .0;
    let mut calls = 0;
    for call in caller.split("sentinel_pkg.").skip(1) {
        let (subprogram, rest) = call.split_once('(').unwrap();
        let parameters = parameters("sentinel_pkg", subprogram);
        let arguments = arguments(rest);
        assert!(arguments.len() <= parameters.len(), "{subprogram} takes fewer arguments");
        let mut given = BTreeSet::new();
        for (place, argument) in arguments.iter().enumerate() {
            let name = match argument.split_once("=>") {
                Some((name, _)) => name.trim().to_string(),
                None => parameters[place].0.clone(),
            };
            assert!(
                parameters.iter().any(|(known, _)| *known == name),
                "{subprogram} has no parameter {name}"
            );
            given.insert(name);
        }
        for (name, has_default) in &parameters {
            assert!(*has_default || given.contains(name), "{subprogram} needs {name}");
        }
        calls += 1;
    }
    assert!(calls >= 5, "a start, steps, an end and a failure");
    for line in [
        "l_id := sentinel_pkg.start_proc('CONTRACT_PKG','CREATE_CONTRACT',p_tenant_id);",
        "sentinel_pkg.update_progress(l_id,'VALIDATING_INPUT',10);",
    ] {
        assert!(caller.contains(line), "{line}");
    }
}

/// What stands between the parenthesis before `rest` and its partner, cut at the commas in between.
fn arguments(rest: &str) -> Vec<String> {
    let (mut depth, mut quoted) = (0, false);
    let mut arguments = vec![String::new()];
    for letter in rest.chars() {
        match letter {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth == 0 => break,
            ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut().unwrap().push(letter);
    }
    arguments.into_iter().map(|argument| argument.trim().to_string()).collect()
}

#[test]
fn whatever_a_producer_calls_counts_its_own_errors_and_raises_none() {
    let text = script("004_sentinel_pkg.sql");
    let body = text.split_once("PACKAGE BODY sentinel_pkg AS").unwrap().1;
    let body = body.split_once("\nEND sentinel_pkg;").unwrap().0;
    for subprogram in [
        "start_process",
        "update_progress",
        "heartbeat",
        "complete_process",
        "fail_process",
        "fail_current",
        "log_debug",
        "log_info",
        "log_warn",
        "log_error",
        "flush_logs",
        "notify_sentinel",
    ] {
        let own = body.split_once(&format!("  PROCEDURE {subprogram}(")).unwrap().1;
        let own = own.split_once(&format!("  END {subprogram};")).unwrap().0;
        let handler = format!(
            "  EXCEPTION\n    WHEN OTHERS THEN\n      note_error('{subprogram}', SQLCODE, SQLERRM);\n      \
             IF must_pass(SQLCODE) THEN RAISE; END IF;\n"
        );
        assert!(own.ends_with(&handler), "{subprogram} ends in the handler");
        let declarations = own.split_once(" IS\n").unwrap().1.split_once("  BEGIN\n").unwrap().0;
        assert!(
            !declarations.contains(":="),
            "{subprogram}: its handler does not see declarations"
        );
    }
}

#[test]
fn a_session_goes_on_when_the_packages_are_replaced() {
    let text = script("004_sentinel_pkg.sql");
    let state = text.split_once("CREATE OR REPLACE PACKAGE sentinel_state").unwrap().1;
    let state = state.split_once("END sentinel_state;").unwrap().0;
    assert!(!state.contains('&'), "no variable may change the text of the state");
    assert!(state.len() < 3500, "the text is kept in a setting of 4000 bytes");
    assert!(text.contains("IF l_there = 1 AND l_before = l_text THEN\n    RETURN;"));
}
