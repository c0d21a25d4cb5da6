//! `sentinel doctor` looks at the store and says what must be mended. This module runs the checks of the configured
//! backend and prints each with the command or statement that mends it.

use std::fmt::Write as _;

use super::exit::{Code, Exit};
use crate::config::{Config, Database, Overrides};
use crate::service;
use crate::store::doctor::{Finding, Verdict};
use crate::store::{oracle, sqlite};

/// Look at the store and say what must be mended, and how
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sentinel doctor
  sentinel doctor --json | jq '.[] | select(.verdict == \"mend\")'

It changes nothing and works while the service runs. Ends with 1 when something must be mended; what cannot be seen \
from here is told and is no failure.")]
pub struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Runs every check and prints what it found.
///
/// # Errors
/// When something must be mended.
pub fn run(args: &DoctorArgs, overrides: Overrides) -> anyhow::Result<()> {
    let (config, _warnings) = super::load(overrides)?;
    let mut findings = match &config.database {
        Database::Embedded => sqlite::doctor::examine(&service::settings(&config)),
        Database::Oracle(database) => oracle::doctor::examine(&service::oracle_settings(database)),
    };
    findings.push(judge_files(
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        &config,
    ));
    let text =
        if args.json { serde_json::to_string_pretty(&findings)? } else { in_words(&findings) };
    super::print(&text)?;
    match findings.iter().filter(|finding| finding.verdict == Verdict::Mend).count() {
        0 => Ok(()),
        1 => Err(Exit::new(Code::Failed, "1 finding must be mended").into()),
        count => Err(Exit::new(Code::Failed, format!("{count} findings must be mended")).into()),
    }
}

/// Files that are open beside connections: the store's, the log's, sockets of our own.
const OTHER_FILES: usize = 100;

/// Each connection is an open file. None: no limit.
fn judge_files(limit: Option<u64>, config: &Config) -> Finding {
    const CHECK: &str = "open files";
    let needed = u64::try_from(config.connections_max + OTHER_FILES).unwrap_or(u64::MAX);
    match limit {
        Some(limit) if limit < needed => Finding::mend(
            CHECK,
            format!("this shell allows {limit}, and SENTINEL_MAX_CONNECTIONS needs {needed}"),
            format!("ulimit -n {needed}   # or LimitNOFILE={needed} in the unit"),
        ),
        Some(limit) => Finding::fine(CHECK, format!("{limit} are allowed, {needed} are needed")),
        None => Finding::fine(CHECK, "no limit"),
    }
}

fn in_words(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, verdict, found, mend } in findings {
        let word = match verdict {
            Verdict::Fine => "fine",
            Verdict::Unknown => "?   ",
            Verdict::Mend => "MEND",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{word}  {check:width$}  {found}");
        for line in mend.iter().flat_map(|mend| mend.lines()) {
            let _ = writeln!(text, "      {line}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_mended_stands_out_and_its_command_has_a_line_of_its_own() {
        let findings = [Finding::fine("a", "well"), Finding::mend("folder", "open", "chmod 700 x")];
        assert_eq!(
            in_words(&findings),
            "fine  a       well\nMEND  folder  open\n      chmod 700 x\n"
        );
    }
}
