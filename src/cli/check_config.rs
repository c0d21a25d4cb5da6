//! `sentinel check-config` shows what the configuration comes to. This module prints it with secrets masked, or says
//! everything that is wrong with it at once; or it prints an environment file with every setting to start from.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use crate::config::{Overrides, Support, VARIABLES};

/// Show the effective configuration, or everything that is wrong with it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sentinel check-config
  SENTINEL_HTTP_PORT=eighty sentinel check-config; echo $?
  sentinel check-config --template > /etc/sentinel/sentinel.env

Ends with 78 when there are problems. Secrets are masked.")]
pub struct CheckConfigArgs {
    /// Print an environment file with every setting, commented, instead
    #[arg(long)]
    template: bool,
}

/// Prints the configuration on stdout and warnings on stderr.
///
/// # Errors
/// When it has problems.
pub fn run(args: &CheckConfigArgs, overrides: Overrides) -> anyhow::Result<()> {
    if args.template {
        super::print(&template())?;
        return Ok(());
    }
    let (config, warnings) = super::load(overrides)?;
    for warning in warnings {
        let _ = writeln!(io::stderr().lock(), "warning: {warning}");
    }
    super::print(&config.print())?;
    Ok(())
}

/// An environment file, as systemd and Docker read it, with every setting that this build knows. All lines are
/// comments, so that the file changes nothing until somebody edits it.
pub fn template() -> String {
    let mut text = String::from(
        "# Settings of Process Sentinel. One NAME=value on a line, without quotes and without a shell.\n\
         # What is commented out has its default. `sentinel check-config` says what is wrong, all at once.\n",
    );
    for variable in VARIABLES.iter().filter(|variable| variable.support != Support::NotYet) {
        let alias = variable.alias.map_or_else(String::new, |alias| format!(" (also {alias})"));
        // A String takes everything.
        let _ = write!(text, "\n# {}{alias}; default: {}\n", variable.meaning, variable.default);
        let _ = match variable.file_name() {
            Some(file) => writeln!(text, "#{file}=\n#{}=", variable.name),
            None => writeln!(text, "#{}=", variable.name),
        };
    }
    text
}
