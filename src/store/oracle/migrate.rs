//! Brings the schema up to this version, with the same scripts that SQL*Plus runs. This module applies them in order,
//! one unit after the other, and keeps in the schema which of them it was and what they said.
//!
//! What must stay true: a script that was applied never changes, so one whose text differs from what is kept is
//! refused; a unit that compiles with errors is a failure, although the database only warns of it; and a schema that
//! a newer program has written is left alone.

use std::collections::BTreeMap;

use oracle::Connection;
use sha2::{Digest as _, Sha256};

use super::bind::{self, Bind};
use super::database::{self, Database};
use super::errors::{self, Class};
use super::message::hex;
use super::script::{self, ScriptError, Unit};
use super::{Care, Settings, misfits};
use crate::store::StoreError;

/// A script of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Script {
    pub version: u32,
    pub name: &'static str,
    text: &'static str,
}

macro_rules! scripts {
    ($($version:literal $name:literal),* $(,)?) => {
        &[$(Script {
            version: $version,
            name: $name,
            text: include_str!(concat!("../../../sql/oracle/", $name, ".sql")),
        }),*]
    };
}

/// The scripts that the owner runs, in their order. What a DBA does before and row security after are run by hand.
pub const SCRIPTS: &[Script] = scripts![
    1 "001_sentinel_types",
    2 "002_sentinel_tables",
    3 "003_sentinel_queue",
    4 "004_sentinel_pkg",
];

/// "Created with compilation errors": a warning to the database, and no success to us.
const COMPILED_WITH_ERRORS: i32 = 24344;

impl Script {
    /// What is kept of its text.
    pub fn checksum(&self) -> String {
        hex(&Sha256::digest(self.text.as_bytes()))
    }

    /// Its units.
    ///
    /// # Errors
    /// When a variable has no value.
    pub fn units(&self, given: &BTreeMap<String, String>) -> Result<Vec<Unit>, ScriptError> {
        script::parse(self.text, given)
    }
}

/// Why the schema was not brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{script}: {error}")]
    Script { script: &'static str, error: ScriptError },
    /// A unit failed. What came before it stays; every script may be run again.
    #[error("{script}, line {line} ({title}): {problem}")]
    Unit { script: &'static str, line: usize, title: String, problem: String },
    #[error(
        "{script} was applied with another text than this program has: {kept} is kept, {ours} is ours; install the release \
         that the schema was made by, or restore the schema"
    )]
    Drift { script: &'static str, kept: String, ours: String },
    #[error(
        "the schema has version {found}, and this program knows {known}: it was written by a newer release"
    )]
    Newer { found: u32, known: u32 },
}

/// What is installed of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub version: u32,
    /// None: it was run by hand.
    pub checksum: Option<String>,
}

/// What is to be done about one script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is there, with this text.
    UpToDate,
    Apply,
    /// It was run by hand, so nobody knows with which text: it is run again, which changes nothing that fits.
    Repeat,
}

/// What is to be done, script by script.
///
/// # Errors
/// [`MigrateError::Drift`] and [`MigrateError::Newer`].
pub fn plan(
    scripts: &[Script],
    installed: &[Installed],
) -> Result<Vec<(Script, Step)>, MigrateError> {
    let known = scripts.iter().map(|script| script.version).max().unwrap_or(0);
    if let Some(newer) = installed.iter().find(|row| row.version > known) {
        return Err(MigrateError::Newer { found: newer.version, known });
    }
    scripts
        .iter()
        .map(|script| {
            let row = installed.iter().find(|row| row.version == script.version);
            let step = match row.map(|row| row.checksum.as_deref()) {
                None => Step::Apply,
                Some(None) => Step::Repeat,
                Some(Some(kept)) if kept == script.checksum() => Step::UpToDate,
                Some(Some(kept)) => {
                    return Err(MigrateError::Drift {
                        script: script.name,
                        kept: kept.to_string(),
                        ours: script.checksum(),
                    });
                }
            };
            Ok((*script, step))
        })
        .collect()
}

/// Migrates as the owner, or only says what that would do. Returns what there was to do.
///
/// # Errors
/// [`MigrateError`]; scripts that were applied before it stay applied.
pub fn run(
    settings: &Settings,
    given: &BTreeMap<String, String>,
    check: bool,
) -> Result<Vec<(Script, Step)>, MigrateError> {
    database::load_client(&settings.address)?;
    // The scripts name their schema themselves.
    let database = Database::new(settings.address.clone(), Care::default(), String::new());
    let failed = |error: oracle::Error| errors::unreachable(errors::classify("migrate", &error));
    let connection = database::open(&database, "migrate").map_err(failed)?;
    if let Some(problem) = misfits::of_database(&connection).map_err(failed)?.into_iter().next() {
        return Err(StoreError::Unreachable { call: "migrate", source: problem.into() }.into());
    }
    // DDL of a large table, or waiting for its locks, may take long.
    connection.set_call_timeout(None).map_err(failed)?;
    let own = current_schema(&connection).map_err(failed)?;
    let given = with_settings(given, settings, &own);
    // All of it is read before any of it is run.
    for script in SCRIPTS {
        script
            .units(&given)
            .map_err(|error| MigrateError::Script { script: script.name, error })?;
    }
    let owner = given.get(OWNER).map_or(own.as_str(), String::as_str);
    let installed = installed(&connection, owner).map_err(failed)?;
    let plan = plan(SCRIPTS, &installed)?;
    if check {
        return Ok(plan);
    }
    let mut unrecorded = Vec::new();
    for (script, step) in &plan {
        if *step != Step::UpToDate {
            apply(&connection, script, &given)?;
            log::info!(script = script.name; "applied");
            unrecorded.push(*script);
        }
        if script.version >= RECORDED_FROM {
            for script in unrecorded.drain(..) {
                record(&connection, owner, &script).map_err(failed)?;
            }
        }
    }
    Ok(plan)
}

/// The variable of the scripts that names the schema.
const OWNER: &str = "sentinel_owner";
/// The variable of the scripts that names the queue.
const QUEUE: &str = "sentinel_queue";
/// The script that makes the table in which all are recorded. What comes before it is recorded with it.
const RECORDED_FROM: u32 = 2;

/// The values of the scripts' variables: those that were given, else what the settings say, else `own`, the schema of
/// whoever migrates.
fn with_settings(
    given: &BTreeMap<String, String>,
    settings: &Settings,
    own: &str,
) -> BTreeMap<String, String> {
    let mut values = given.clone();
    let schema = if settings.schema.is_empty() { own } else { &settings.schema };
    // Names that nobody quotes are kept in capitals, and the scripts compare them with those.
    values.entry(OWNER.to_string()).or_insert_with(|| schema.to_ascii_uppercase());
    if !settings.queue.is_empty() {
        values.entry(QUEUE.to_string()).or_insert_with(|| settings.queue.to_ascii_uppercase());
    }
    values
}

/// The schema that names without an owner belong to: that of the user who logged in.
fn current_schema(connection: &Connection) -> oracle::Result<String> {
    const ASK: &str = "SELECT SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA') AS name FROM dual";
    let found = bind::query(connection, ASK, &[], 1, |row| bind::text(row, "name"))?;
    Ok(found.into_iter().next().unwrap_or_default())
}

/// What the schema says is installed. Nothing where its table is not there.
pub(super) fn installed(connection: &Connection, owner: &str) -> oracle::Result<Vec<Installed>> {
    let ask =
        format!("SELECT version, checksum FROM {owner}.sentinel_schema_version ORDER BY version");
    let found = bind::query(connection, &ask, &[], SCRIPTS.len(), |row| {
        let version = u32::try_from(bind::integer(row, "version")?).unwrap_or(u32::MAX);
        Ok(Installed { version, checksum: bind::optional_text(row, "checksum")? })
    });
    match found {
        Err(error) if errors::class_of(&error) == Class::Missing => Ok(Vec::new()),
        other => other,
    }
}

fn record(connection: &Connection, owner: &str, script: &Script) -> oracle::Result<()> {
    let (name, checksum) = (script.name, script.checksum());
    let version = Bind::Integer(Some(i64::from(script.version)));
    let update = format!(
        "UPDATE {owner}.sentinel_schema_version SET name = :name, checksum = :checksum, \
         applied_at = SYS_EXTRACT_UTC(SYSTIMESTAMP) WHERE version = :version"
    );
    let row = [Bind::text(name, 100), Bind::text(&checksum, 64), version];
    if bind::execute(connection, &update, &row)? == 0 {
        let insert = format!(
            "INSERT INTO {owner}.sentinel_schema_version (name, checksum, version) VALUES (:name, :checksum, :version)"
        );
        bind::execute(connection, &insert, &row)?;
    }
    connection.commit()
}

fn apply(
    connection: &Connection,
    script: &Script,
    given: &BTreeMap<String, String>,
) -> Result<(), MigrateError> {
    let units =
        script.units(given).map_err(|error| MigrateError::Script { script: script.name, error })?;
    for unit in units {
        let failed = |problem: String| MigrateError::Unit {
            script: script.name,
            line: unit.line,
            title: unit.title().to_string(),
            problem,
        };
        bind::run_once(connection, &unit.text).map_err(|error| failed(with_advice(&error)))?;
        let warning = connection.last_warning();
        let compiled = warning.as_ref().and_then(oracle::Error::db_error).map(|error| error.code());
        if compiled == Some(COMPILED_WITH_ERRORS) {
            let problems = compile_errors(connection)
                .unwrap_or_else(|error| errors::clean(&error.to_string()));
            return Err(failed(format!("it compiled with errors: {problems}")));
        }
    }
    Ok(())
}

fn with_advice(error: &oracle::Error) -> String {
    let words = errors::clean(&error.to_string());
    match errors::class_of(error) {
        Class::Missing => format!(
            "{words}; run sql/oracle/000_grants_as_dba.sql as a DBA, and migrate as the owner of the schema"
        ),
        class => match class.advice() {
            Some(advice) => format!("{words}; {advice}"),
            None => words,
        },
    }
}

/// The errors of the units that compiled last, the first few.
fn compile_errors(connection: &Connection) -> oracle::Result<String> {
    const ASK: &str = "SELECT name, line, text FROM all_errors \
         WHERE owner = SYS_CONTEXT('USERENV', 'CURRENT_SCHEMA') AND attribute = 'ERROR' \
         ORDER BY name, sequence FETCH FIRST 5 ROWS ONLY";
    let lines = bind::query(connection, ASK, &[], 5, |row| {
        let (name, text) = (bind::text(row, "name")?, bind::text(row, "text")?);
        Ok(format!("{name} line {}: {}", bind::integer(row, "line")?, errors::clean(&text)))
    })?;
    Ok(lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::oracle::address::{Address, Given};

    fn rows(checksums: &[Option<&str>]) -> Vec<Installed> {
        (1..)
            .zip(checksums)
            .map(|(version, checksum)| Installed { version, checksum: checksum.map(String::from) })
            .collect()
    }

    fn steps(installed: &[Installed]) -> Vec<Step> {
        plan(SCRIPTS, installed).unwrap().into_iter().map(|(_, step)| step).collect()
    }

    #[test]
    fn an_empty_schema_gets_everything_and_a_full_one_nothing() {
        assert_eq!(steps(&[]), [Step::Apply; 4]);
        let sums: Vec<String> = SCRIPTS.iter().map(Script::checksum).collect();
        let sums: Vec<Option<&str>> = sums.iter().map(|sum| Some(sum.as_str())).collect();
        assert_eq!(steps(&rows(&sums)), [Step::UpToDate; 4]);
        assert_eq!(
            steps(&rows(&sums[..2])),
            [Step::UpToDate, Step::UpToDate, Step::Apply, Step::Apply]
        );
    }

    #[test]
    fn the_owner_is_who_logs_in_and_the_queue_is_the_configured_one_unless_they_are_given() {
        let given = Given { target: Some("db:1521/s".into()), ..Given::default() };
        let mut settings = Settings::new(Address::from_settings(&given).unwrap());
        let none = BTreeMap::new();
        let pairs = |values: BTreeMap<String, String>| values.into_iter().collect::<Vec<_>>();
        let of = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(pairs(with_settings(&none, &settings, "SCOTT")), [of(OWNER, "SCOTT")]);
        settings.schema = "monitor".into();
        settings.queue = "events_q".into();
        let wanted = [of(OWNER, "MONITOR"), of(QUEUE, "EVENTS_Q")];
        assert_eq!(pairs(with_settings(&none, &settings, "SCOTT")), wanted);
        let typed = BTreeMap::from([of(OWNER, "A"), of(QUEUE, "B")]);
        assert_eq!(with_settings(&typed, &settings, "SCOTT"), typed);
    }

    #[test]
    fn what_was_run_by_hand_is_run_again() {
        assert_eq!(steps(&rows(&[None]))[0], Step::Repeat);
    }

    #[test]
    fn a_script_that_changed_and_a_newer_schema_are_refused() {
        let error = plan(SCRIPTS, &rows(&[Some("00ff")])).unwrap_err();
        assert!(matches!(&error, MigrateError::Drift { script, .. } if *script == SCRIPTS[0].name));
        let newer = [Installed { version: 99, checksum: None }];
        assert!(matches!(plan(SCRIPTS, &newer), Err(MigrateError::Newer { found: 99, known: 4 })));
    }

    #[test]
    fn every_script_can_be_taken_apart_and_none_leaves_a_variable() {
        for script in SCRIPTS {
            let units = script.units(&BTreeMap::new()).unwrap();
            assert!(!units.is_empty(), "{}", script.name);
            for unit in units {
                assert!(!unit.text.contains("&sentinel"), "{} line {}", script.name, unit.line);
                assert!(!unit.text.to_ascii_uppercase().starts_with("WHENEVER"));
            }
        }
    }

    #[test]
    fn versions_follow_each_other_and_are_those_of_the_names() {
        for (expected, script) in (1..).zip(SCRIPTS) {
            assert_eq!(script.version, expected);
            assert!(script.name.starts_with(&format!("{expected:03}_")), "{}", script.name);
        }
    }
}
