//! `sentinel doctor` looks at everything that the service stands on and says what must be mended. This module runs the
//! checks of the configuration, the machine, the network and the configured store, and prints each with what was seen,
//! why it matters, and the command or statement that mends it.

mod certificates;
mod machine;
mod network;

use std::fmt::Write as _;

use super::exit::{Code, Exit};
use crate::config::{Config, Database, Overrides, Problems, Warning};
use crate::service;
use crate::store::doctor::{Check, Finding, Verdict};
use crate::store::{oracle, sqlite};

/// Look at everything the service stands on, and say what must be mended and how
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sentinel doctor
  sentinel doctor --why
  sentinel doctor --json | jq '.[] | select(.verdict == \"fail\")'
  ORACLE_USERNAME=system ORACLE_PASSWORD_FILE=./password sentinel doctor

It changes nothing and works while the service runs. OK: as it should be; ? : cannot be seen from here, which is told \
and is no failure; WARN: it works, and should be mended before it does not; FAIL: something does not work, or loses \
data. The user of the service sees little of an Oracle dictionary: a DBA sees all (the last example).

Ends with 0 when nothing is WARN or FAIL, 1 when the worst is WARN, 69 when something is FAIL, 78 when the \
configuration has problems.")]
pub struct DoctorArgs {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// Say for every check why it matters, and not only where something is wrong
    #[arg(long)]
    why: bool,
}

const CONFIGURATION: Check = Check::new(
    "configuration",
    "the service does not start with a problem in it, and does what nobody meant with a doubtful one",
);

/// Runs every check and prints what it found.
///
/// # Errors
/// When something must be mended; the exit code says how bad it is.
pub fn run(args: &DoctorArgs, overrides: Overrides) -> anyhow::Result<()> {
    let (findings, bad) = match Config::from_environment(overrides) {
        Ok((config, warnings)) => (examine(&config, &warnings), Code::Unavailable),
        // Without a configuration there is nothing else to look at.
        Err(problems) => (judge_problems(&problems), Code::Configuration),
    };
    let text = if args.json {
        serde_json::to_string_pretty(&findings)?
    } else {
        in_words(&findings, args.why)
    };
    super::print(&text)?;
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    match (count(Verdict::Fail), count(Verdict::Warn)) {
        (0, 0) => Ok(()),
        (0, warned) => Err(Exit::new(Code::Failed, format!("{warned} WARN")).into()),
        (failed, warned) => Err(Exit::new(bad, format!("{failed} FAIL, {warned} WARN")).into()),
    }
}

fn examine(config: &Config, warnings: &[Warning]) -> Vec<Finding> {
    let mut findings = judge_warnings(warnings);
    findings.extend(machine::examine(config));
    findings.extend(certificates::examine(config));
    findings.extend(network::examine(config));
    findings.extend(match &config.database {
        Database::Embedded => sqlite::doctor::examine(&service::settings(config)),
        Database::Oracle(database) => oracle::doctor::examine(&service::oracle_settings(database)),
    });
    findings
}

const CHECK_CONFIG: &str = "sentinel check-config   # says where each value comes from";

fn judge_problems(problems: &Problems) -> Vec<Finding> {
    problems.0.iter().map(|problem| CONFIGURATION.fail(problem.to_string(), CHECK_CONFIG)).collect()
}

fn judge_warnings(warnings: &[Warning]) -> Vec<Finding> {
    if warnings.is_empty() {
        return vec![CONFIGURATION.ok("no problem and no warning")];
    }
    warnings.iter().map(|warning| CONFIGURATION.warn(warning.to_string(), CHECK_CONFIG)).collect()
}

fn in_words(findings: &[Finding], always_why: bool) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { check, verdict, found, why, mend } in findings {
        let word = match verdict {
            Verdict::Ok => "OK  ",
            Verdict::Unknown => "?   ",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        };
        // Writing to a string cannot fail. What a database or a file says moves no cursor.
        let found = super::words::escaped(found);
        let _ = writeln!(text, "{word}  {check:width$}  {found}");
        if always_why || *verdict >= Verdict::Warn {
            let _ = writeln!(text, "      why: {why}");
        }
        for line in mend.iter().flat_map(|mend| mend.lines()) {
            let _ = writeln!(text, "      {}", super::words::escaped(line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_mended_stands_out_says_why_and_its_command_has_a_line_of_its_own() {
        let (one, two) = (Check::new("a", "of a"), Check::new("folder", "of b"));
        let findings =
            [one.ok("well"), two.fail("open\u{1b}[2J", "chmod 700 x\nls"), one.unknown("hidden")];
        let words = in_words(&findings, false);
        assert!(!words.contains('\u{1b}'), "{words}");
        let lines: Vec<&str> = words.lines().collect();
        assert_eq!(lines[0], "OK    a       well");
        assert!(lines[1].starts_with("FAIL  folder  open"));
        assert_eq!(
            lines[2..],
            ["      why: of b", "      chmod 700 x", "      ls", "?     a       hidden"]
        );
        assert_eq!(in_words(&findings, true).matches("why: ").count(), 3);
    }

    #[test]
    fn every_problem_of_the_configuration_is_a_finding() {
        let problems =
            Problems(vec![crate::config::Problem { name: "A".into(), what: "is wrong".into() }]);
        let findings = judge_problems(&problems);
        assert_eq!(findings[0].verdict, Verdict::Fail);
        assert_eq!(findings[0].found, "A: is wrong");
        assert_eq!(judge_warnings(&[])[0].verdict, Verdict::Ok);
    }
}
