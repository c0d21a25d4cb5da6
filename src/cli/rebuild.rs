//! `sentinel rebuild` makes the projection anew from the last checked snapshot and the log. This module says how far
//! that reaches.

use crate::config::Overrides;
use crate::service;
use crate::store::sqlite;

/// Make the projection anew from the last snapshot and the log
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sentinel rebuild
  sentinel --database sqlite:///var/lib/sentinel rebuild

For a projection that is damaged. The service must not be running. What was there is kept beside it.")]
pub struct RebuildArgs {}

/// Rebuilds, and prints how far that reaches.
///
/// # Errors
/// When another instance holds the store, or the log or the snapshot cannot be read.
pub fn run(_: &RebuildArgs, overrides: Overrides) -> anyhow::Result<()> {
    let (config, _warnings) = super::load(overrides)?;
    super::embedded_only(
        &config,
        "its tables are written with the queue in one transaction, so there is nothing to rebuild",
    )?;
    super::store_there(&config)?;
    let report = sqlite::rebuild(&service::settings(&config))?;
    super::print(&report.to_string())?;
    Ok(())
}
