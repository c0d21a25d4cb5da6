//! `sentinel migrate` brings the store's tables up to this version. This module does it without serving, for those
//! who want to see it done before they start.

use super::exit::{Code, Exit};
use crate::config::Overrides;
use crate::service;
use crate::store::sqlite;

/// Bring the store up to this version, or say what that would do
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sentinel migrate
  sentinel migrate --check || echo 'there is something to do'

The service does the same at its start. It must not be running: only one instance can hold the store.")]
pub struct MigrateArgs {
    /// Change nothing; end with 1 when there is something to do
    #[arg(long)]
    check: bool,
}

/// Migrates, or only looks.
///
/// # Errors
/// When the store cannot be opened, or with `--check` when there is something to do.
pub fn run(args: &MigrateArgs, overrides: Overrides) -> anyhow::Result<()> {
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
