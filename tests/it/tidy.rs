//! Rules that hold for every file of the repository. This module reads the sources as text, so that a rule that a
//! compiler does not know is still kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this holds more than one noun.
const FILE_LINES_MAX: usize = 700;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` with this ending, by its path from the root.
pub(crate) fn files(folder: &str, ending: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                let text = fs::read_to_string(&path).unwrap();
                found.insert(path.strip_prefix(root()).unwrap().to_path_buf(), text);
            }
        }
    }
    found
}

fn sources() -> BTreeMap<PathBuf, String> {
    let sources = files("src", "rs");
    assert!(sources.len() > 10, "the sources are where they were");
    sources
}

/// The sources without unit tests, be they at the foot of a file or in files of their own.
fn production_sources() -> BTreeMap<PathBuf, String> {
    let sources = sources().into_iter();
    let production =
        sources.filter(|(path, _)| !path.iter().any(|part| part == "tests" || part == "tests.rs"));
    production
        .map(|(path, text)| {
            // A module that is declared here stands elsewhere, and what follows is no test.
            let length = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
            (path, text[..length].to_string())
        })
        .collect()
}

/// Fails with all offenders at once.
fn nobody(offenders: Vec<String>, rule: &str) {
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}

#[test]
fn no_async_runtime_is_in_the_tree() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let runtimes = ["tokio", "async-std", "smol"];
    let found = runtimes.iter().filter(|name| lock.contains(&format!("name = \"{name}\"\n")));
    nobody(found.map(ToString::to_string).collect(), "Cargo.lock holds an async runtime");
}

#[test]
fn what_must_not_be_in_the_tree_is_named_where_crates_are_judged_and_is_not_there() {
    let rules = fs::read_to_string(root().join(".deny.toml")).unwrap();
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let banned: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next())
        .collect();
    for name in [
        "tokio",
        "async-std",
        "smol",
        "openssl",
        "openssl-sys",
        "native-tls",
        "aws-lc-rs",
        "aws-lc-sys",
    ] {
        assert!(banned.contains(&name), ".deny.toml does not ban {name}");
    }
    let found = banned.iter().filter(|name| lock.contains(&format!("name = \"{name}\"\n")));
    nobody(found.map(ToString::to_string).collect(), "Cargo.lock holds a banned crate");
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut offenders = Vec::new();
    for (path, text) in production_sources() {
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let first = header.split(|line| *line == "//!").next().unwrap_or_default();
        let words = first.join(" ").replace("//! ", "");
        if !words.to_lowercase().contains("this module") {
            offenders.push(path.display().to_string());
        }
    }
    nobody(offenders, "the first paragraph of the header says what \"this module\" is for");
}

#[test]
fn no_file_holds_too_much() {
    let sources = sources().into_iter().chain(files("tests", "rs"));
    let long = sources.filter(|(_, text)| text.lines().count() > FILE_LINES_MAX);
    let long =
        long.map(|(path, text)| format!("{} has {} lines", path.display(), text.lines().count()));
    nobody(
        long.collect(),
        &format!("a file has at most {FILE_LINES_MAX} lines; which two nouns live there?"),
    );
}

#[test]
fn a_module_imports_only_from_its_own_section_and_those_above() {
    let sections = sections();
    let mut offenders = Vec::new();
    for (path, text) in production_sources() {
        let Some(own) = module_of(&path) else { continue };
        let Some(own_section) = sections.get(&own) else {
            panic!("{} belongs to no section of lib.rs", path.display());
        };
        for imported in imports(&text) {
            if sections.get(&imported).is_some_and(|section| section > own_section) {
                offenders.push(format!("{} imports crate::{imported}", path.display()));
            }
        }
    }
    nobody(offenders, "a module imports only from its own section of lib.rs and those above it");
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let modules = sections();
    // Whom each module still waits for.
    let mut waiting: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, text) in production_sources() {
        let Some(own) = module_of(&path) else { continue };
        let others = imports(&text).into_iter().filter(|name| *name != own);
        let others: Vec<String> = others.filter(|name| modules.contains_key(name)).collect();
        waiting.entry(own).or_default().extend(others);
    }
    assert!(waiting.values().flatten().count() > 20, "modules import each other");
    // Who waits for nobody goes, until nobody can.
    while let Some(free) = waiting.iter().find(|(_, others)| others.is_empty()) {
        let free = free.0.clone();
        waiting.remove(&free);
        for others in waiting.values_mut() {
            others.remove(&free);
        }
    }
    let circles = waiting.iter().map(|(own, others)| format!("{own} waits for {others:?}"));
    nobody(circles.collect(), "the imports between the modules of lib.rs make no circle");
}

/// The section of each module of `lib.rs`, counted from the top. A comment opens a section.
fn sections() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut sections = BTreeMap::new();
    let mut section = 0;
    for line in text.lines() {
        if line.starts_with("// ") {
            section += 1;
        } else if let Some(module) = line.strip_prefix("pub mod ") {
            sections.insert(module.trim_end_matches(';').to_string(), section);
        }
    }
    assert!(section > 4, "lib.rs has sections");
    sections
}

/// The module of `lib.rs` that a file belongs to. None for the frame around them.
fn module_of(path: &Path) -> Option<String> {
    let below = path.strip_prefix("src").ok()?;
    let name = below.iter().next()?.to_str()?.trim_end_matches(".rs");
    (!matches!(name, "lib" | "main")).then(|| name.to_string())
}

/// The modules named after `crate::`, in imports and anywhere else in the code, but not in comments.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for after in line.split("crate::").skip(1) {
            let name: String = after
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                .collect();
            found.push(name);
            // `use crate::{domain, store}`: the names that stand first in each part.
            if let Some(list) = after.strip_prefix('{') {
                found.extend(list.split(',').map(|part| {
                    let part = part.trim().trim_end_matches([';', '}']);
                    part.split("::").next().unwrap_or_default().to_string()
                }));
            }
        }
    }
    found
}

#[test]
fn only_a_component_starts_a_thread() {
    let spawners = ["thread::spawn", "thread::Builder", "thread::scope"];
    let mut offenders = Vec::new();
    for (path, text) in production_sources() {
        let allowed = path == Path::new("src/component.rs");
        let found = spawners.iter().find(|call| text.contains(*call));
        if let (false, Some(call)) = (allowed, found) {
            offenders.push(format!("{}: {call}", path.display()));
        }
    }
    nobody(offenders, "threads are started by Component::start only");
}

#[test]
fn the_program_ends_by_returning_from_main() {
    let sources = sources().into_iter();
    let exits = sources
        .filter(|(_, text)| text.contains("process::exit(") || text.contains("process::abort("));
    nobody(
        exits.map(|(path, _)| path.display().to_string()).collect(),
        "nothing ends the process at once",
    );
}

#[test]
fn every_statement_of_the_embedded_store_is_used() {
    let sources: String = sources().into_values().collect();
    let unused = files("sql/sqlite", "sql").into_keys().filter(|path| {
        let name = path.strip_prefix("sql/").unwrap().display().to_string();
        let file = path.file_name().unwrap().to_str().unwrap();
        // Included by its path from src, or by name through a macro that adds the folder.
        !sources.contains(&name) && !sources.contains(&format!("\"{file}\"")) && {
            let stem = file.trim_end_matches(".sql");
            !sources.contains(&format!("\"{stem}\""))
        }
    });
    nobody(
        unused.map(|path| path.display().to_string()).collect(),
        "a statement is included nowhere",
    );
}

#[test]
fn every_statement_of_the_oracle_store_is_used_and_says_what_it_is_for() {
    let sources: String = sources().into_values().collect();
    let mut offenders = Vec::new();
    for (path, text) in files("sql/oracle/statements", "sql") {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if !sources.contains(&format!("statement!(\"{stem}\")")) {
            offenders.push(format!("{} is used nowhere", path.display()));
        }
        for word in ["-- Two instances at once: ", "-- Parameters: "] {
            if !text.contains(word) {
                offenders.push(format!("{} does not say {word:?}", path.display()));
            }
        }
    }
    nobody(offenders, "a statement for Oracle is used, and says why two instances may run it");
}

#[test]
fn only_one_module_hands_parameters_to_the_oracle_driver() {
    let calls = [
        ".execute(",
        ".execute_named(",
        ".query(",
        ".query_row",
        ".query_as",
        ".batch(",
        ".statement(",
    ];
    let mut offenders = Vec::new();
    for (path, text) in production_sources() {
        if !path.starts_with("src/store/oracle") || path.ends_with("bind.rs") {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            if calls.iter().any(|call| line.contains(call)) {
                offenders.push(format!("{} line {number}: {}", path.display(), line.trim()));
            }
        }
    }
    nobody(
        offenders,
        "values reach Oracle through src/store/oracle/bind.rs, which gives each its type",
    );
}
