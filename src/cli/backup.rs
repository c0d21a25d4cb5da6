//! `sentinel backup DIR` copies the embedded store while the service runs. This module says where from and where to;
//! the store knows in what order, and writes the manifest that a restore checks.

use std::path::PathBuf;

use super::exit::{Code, Exit};
use crate::config::Overrides;
use crate::store::{StoreError, sqlite};

/// Copy the store to a new folder, while the service runs
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sentinel backup /backup/sentinel-2026-01-28
  sentinel --database sqlite:///var/lib/sentinel backup /backup/today

To restore, stop the service and put the copy in the place of its folder. The manifest in \
the copy lists each file with its checksum.")]
pub struct BackupArgs {
    /// The folder to make; it must not exist or be empty
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Makes the copy.
///
/// # Errors
/// When the store cannot be read or the copy not be written.
pub fn run(args: &BackupArgs, overrides: Overrides) -> anyhow::Result<()> {
    let (config, _warnings) = super::load(overrides)?;
    super::embedded_only(&config, "back the database up with its own tools (RMAN)")?;
    super::store_there(&config)?;
    let copied = sqlite::backup(&config.data_folder, &args.folder, super::now());
    let manifest = copied.map_err(|error| match error {
        // It is the copy that cannot be written; how the store fares was not asked.
        StoreError::NoSpace { why, source, .. } => {
            anyhow::Error::from(Exit::new(Code::Failed, format!("backup failed: {why}: {source}")))
        }
        other => other.into(),
    })?;
    super::print(&format!("{}: {manifest}", args.folder.display()))?;
    Ok(())
}
