//! `sentinel migrate` brings the store's tables up to this version. This module does it without serving, for those
//! who want to see it done before they start, and for the owner of an Oracle schema, who is not the service's user.

use std::collections::BTreeMap;

use super::exit::{Code, Exit};
use crate::config::{OracleDatabase, Overrides};
use crate::service;
use crate::store::oracle::migrate::{self as oracle, MigrateError, Step};
use crate::store::sqlite;

/// Bring the store up to this version, or say what that would do
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sentinel migrate
  sentinel migrate --check || echo 'there is something to do'
  ORACLE_USERNAME=sentinel ORACLE_PASSWORD_FILE=./password sentinel --database oracle://ALIAS migrate

The service does the same to an embedded store at its start; it must not be running: only one instance can hold the \
store. An Oracle schema is migrated by its owner, after a DBA has run sql/oracle/000_grants_as_dba.sql.")]
pub struct MigrateArgs {
    /// Change nothing; end with 1 when there is something to do
    #[arg(long)]
    check: bool,
    /// A substitution variable of the Oracle scripts, such as `sentinel_owner=SENTINEL`
    #[arg(long, value_name = "NAME=VALUE", value_parser = definition)]
    define: Vec<(String, String)>,
}

fn definition(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok((name.to_ascii_lowercase(), value.to_string()))
        }
        _ => Err("write it as NAME=VALUE".to_string()),
    }
}

/// Migrates, or only looks.
///
/// # Errors
/// When the store cannot be opened, or with `--check` when there is something to do.
pub fn run(args: &MigrateArgs, overrides: Overrides) -> anyhow::Result<()> {
    // The owner of a schema has no use for the rest of the service's configuration.
    let database = OracleDatabase::from_environment(overrides.clone())
        .map_err(|problems| Exit::new(Code::Configuration, problems.to_string()))?;
    match database {
        Some(database) => migrate_oracle(args, &database),
        None => migrate_embedded(args, overrides),
    }
}

fn migrate_embedded(args: &MigrateArgs, overrides: Overrides) -> anyhow::Result<()> {
    if !args.define.is_empty() {
        return Err(Exit::new(Code::Usage, "--define is for an Oracle schema").into());
    }
    let (config, _warnings) = super::load(overrides)?;
    let migrated = sqlite::migrate(&service::settings(&config), args.check)?;
    if migrated.from == migrated.to {
        super::print(&format!("the store is up to date: version {}", migrated.to))?;
        return Ok(());
    }
    let verb = if args.check { "would go" } else { "has gone" };
    super::print(&format!("the store {verb} from version {} to {}", migrated.from, migrated.to))?;
    if args.check {
        return Err(Exit::new(Code::Failed, "the store is not up to date").into());
    }
    Ok(())
}

fn migrate_oracle(args: &MigrateArgs, database: &OracleDatabase) -> anyhow::Result<()> {
    let given: BTreeMap<String, String> = args.define.iter().cloned().collect();
    let plan =
        oracle::run(&service::oracle_settings(database), &given, args.check).map_err(|error| {
            match error {
                MigrateError::Store(error) => anyhow::Error::from(error),
                MigrateError::Drift { .. } | MigrateError::Newer { .. } => {
                    Exit::new(Code::DataDamaged, error.to_string()).into()
                }
                MigrateError::Script { .. } | MigrateError::Unit { .. } => {
                    Exit::new(Code::Failed, error.to_string()).into()
                }
            }
        })?;
    let mut open = 0;
    for (script, step) in &plan {
        let words = match (step, args.check) {
            (Step::UpToDate, _) => "is up to date",
            (Step::Apply, true) => "would be applied",
            (Step::Repeat, true) => "was run by hand, and would be run again",
            (Step::Apply | Step::Repeat, false) => "has been applied",
        };
        open += usize::from(*step != Step::UpToDate);
        super::print(&format!("{} {words}", script.name))?;
    }
    if args.check && open > 0 {
        return Err(Exit::new(Code::Failed, "the schema is not up to date").into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_has_a_name_and_a_value() {
        assert_eq!(
            definition("SENTINEL_OWNER=SCRATCH"),
            Ok(("sentinel_owner".to_string(), "SCRATCH".to_string()))
        );
        assert!(definition("=x").is_err() && definition("x").is_err());
    }
}
