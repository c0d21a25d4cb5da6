//! `sentinel migrate` brings the store's tables up to this version. This module does it without serving, for those
//! who want to see it done before they start.

use super::exit::{Code, Exit};
use crate::config::Overrides;
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
    let steps = sqlite::migrate(&config.data_folder, args.check)?;
    if steps.is_empty() {
        super::print("the store is up to date")?;
        return Ok(());
    }
    super::print(&steps.join("\n"))?;
    if args.check {
        return Err(Exit::new(Code::Failed, "the store is not up to date").into());
    }
    Ok(())
}
