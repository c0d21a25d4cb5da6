//! The project's own scripts, run as they are: the twin tables can't drift.

use std::fs;
use std::path::Path;

use super::{code, connect, standin_or_skip, varchar};

/// The units of a script, with the substitution variables that it defines.
fn units(text: &str) -> Vec<String> {
    let mut variables = Vec::new();
    let mut units = Vec::new();
    let mut unit = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["DEFINE", name, "=", value] => {
                variables.push(((*name).to_owned(), (*value).to_owned()))
            }
            ["SET" | "WHENEVER" | "PROMPT" | "EXIT", ..] if nothing(&unit) => {}
            ["/"] => units.push(std::mem::take(&mut unit)),
            _ => {
                unit.push_str(line);
                unit.push('\n');
            }
        }
    }
    assert!(nothing(&unit), "{unit}");
    for unit in &mut units {
        for (name, value) in &variables {
            *unit = unit.replace(&format!("&{name}."), value).replace(&format!("&{name}"), value);
        }
    }
    units
}

/// Only comments and blanks.
fn nothing(text: &str) -> bool {
    text.lines().all(|line| line.trim().is_empty() || line.starts_with("--"))
}

#[test]
fn every_script_runs_and_runs_again() {
    let standin = standin_or_skip!();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sql/oracle");
    let folder = std::env::var_os("OCI_STANDIN_SCRIPTS").map_or(own, Into::into);
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("SKIPPED: {} has no scripts yet", folder.display());
        return;
    };
    let mut scripts: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    scripts.sort();
    let connection = connect(&standin);
    for _ in 0..2 {
        for script in &scripts {
            let name = script.file_name().unwrap().to_string_lossy().into_owned();
            // Grants and row security have no twin, and nobody uninstalls here.
            if !(name.starts_with("001")
                || name.starts_with("002")
                || name.starts_with("003")
                || name.starts_with("004"))
            {
                continue;
            }
            for unit in units(&fs::read_to_string(script).unwrap()) {
                let done = connection.execute(&unit, &[]);
                assert!(done.is_ok(), "{name}: {}\n{unit}", done.map(|_| ()).unwrap_err());
            }
        }
    }
    let tables: i64 = connection
        .query_row_as("SELECT COUNT(*) FROM all_tables WHERE owner = 'SENTINEL'", &[])
        .unwrap();
    assert!(tables >= 20, "{tables}");
    let insert = "INSERT INTO process_registry (tenant_id, process_id, status, config) VALUES (:1, :2, :3, :4)";
    let row = |status: &str, config: &str| {
        connection
            .execute(insert, &[&varchar("t"), &varchar("p"), &varchar(status), &varchar(config)])
    };
    assert_eq!(code(row("NEVER", "{}")), 2290);
    assert_eq!(code(row("ACTIVE", "{")), 2290);
    row("ACTIVE", "{}").unwrap();
    assert_eq!(code(row("ACTIVE", "{}")), 1);
}
