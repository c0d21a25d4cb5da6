//! `sentinel check-config` shows what the configuration comes to. This module prints it with secrets masked, or says
//! everything that is wrong with it at once.

use std::io::{self, Write};

use crate::config::Overrides;

/// Show the effective configuration, or everything that is wrong with it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sentinel check-config
  SENTINEL_HTTP_PORT=eighty sentinel check-config; echo $?

Ends with 78 when there are problems. Secrets are masked.")]
pub struct CheckConfigArgs {}

/// Prints the configuration on stdout and warnings on stderr.
///
/// # Errors
/// When it has problems.
pub fn run(_: &CheckConfigArgs, overrides: Overrides) -> anyhow::Result<()> {
    let (config, warnings) = super::load(overrides)?;
    for warning in warnings {
        let _ = writeln!(io::stderr().lock(), "warning: {warning}");
    }
    super::print(&config.print())?;
    Ok(())
}
