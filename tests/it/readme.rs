//! The README says what the program does. This module holds its table of settings, its routes and its exit codes
//! against the code, so that neither can change alone.

use sentinel::config::{Support, VARIABLES};
use sentinel::routes::table::{Action, ROUTES};

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// The table of settings as the README must show it.
fn settings() -> String {
    let mut table = String::from("| variable (alias) | default | meaning |\n|---|---|---|\n");
    for variable in VARIABLES.iter().filter(|variable| variable.support == Support::Full) {
        let alias = variable.alias.map_or_else(String::new, |alias| format!(" (`{alias}`)"));
        table.push_str(&format!(
            "| `{}`{alias} | {} | {} |\n",
            variable.name, variable.default, variable.meaning
        ));
    }
    table
}

#[test]
fn the_table_of_settings_is_that_of_the_program() {
    let table = settings();
    assert!(readme().contains(&table), "README.md must hold this table:\n{table}");
}

#[test]
fn every_route_for_users_is_named() {
    let readme = readme();
    for route in ROUTES.iter().filter(|route| route.action != Action::Index) {
        // Reports share one row, and so do documents.
        let word = match route.action {
            Action::Report(kind) => kind.as_str(),
            Action::ProblemHelp => "/problems",
            Action::Stream => "/v1/streams/",
            _ => route.path,
        };
        assert!(readme.contains(word), "{word}");
    }
}

#[test]
fn every_exit_code_is_explained() {
    let readme = readme();
    for code in [0, 1, 2, 65, 69, 70, 71, 74, 75, 78] {
        assert!(readme.contains(&format!("| {code} |")), "{code}");
    }
}
