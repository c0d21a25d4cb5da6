//! The command line. This module knows the commands, runs one, and turns what it came to into words and an exit code.
//!
//! The service itself is one of the commands, and the one that runs when none is named. Client commands never read
//! the service's configuration, since they often run on another machine; only the development key lies with it.

mod backoff;
pub mod backup;
mod bearer;
pub mod check_config;
pub mod client;
pub mod doctor;
pub mod exit;
pub mod health;
pub mod load;
pub mod migrate;
pub mod purge;
pub mod rebuild;
pub mod run;
pub mod serve;
pub mod tail;
pub mod token;
pub mod top;
pub mod watchdog;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use self::exit::{Code, Exit};
use crate::config::{Config, Database, Overrides, Warning};
use crate::domain::time::Timestamp;

const EXAMPLES: &str = "\
Examples:
  sentinel                                       serve, with the embedded store in ./sentinel-data
  sentinel --database sqlite:///var/lib/sentinel serve
  export SENTINEL_TOKEN=$(sentinel token --tenant demo)
  sentinel run --name nightly-backup -- ./backup.sh
  sentinel tail nightly-backup --until-end
  sentinel top
  sentinel health

Exit codes: 0 clean stop; 1 a client command failed; 2 usage; 65 the store's files are damaged; 69 the \
store cannot be reached; 70 a thread ended uninvited; 71 the system refuses a port or a thread; 74 input/output error on a commit; 75 another \
instance holds the store; 78 configuration. `sentinel run` ends with the code of its command.";

const DATABASE_HELP: &str = "Where the store is, instead of SENTINEL_DATABASE: sqlite://PATH, oracle://ALIAS or oracle://HOST:PORT/SERVICE";
const BIND_HELP: &str = "Where to listen, instead of SENTINEL_LISTEN_ADDRESS and SENTINEL_HTTP_PORT: tcp://ADDRESS:PORT";

/// Knows what every long-running process is doing
#[derive(Debug, Parser)]
#[command(name = "sentinel", version, after_help = EXAMPLES, max_term_width = 110)]
struct CommandLine {
    #[command(flatten)]
    instead: InsteadOfEnvironment,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags that override the environment.
#[derive(Debug, clap::Args)]
struct InsteadOfEnvironment {
    #[arg(long, global = true, value_name = "ADDRESS", help = DATABASE_HELP)]
    database: Option<String>,
    #[arg(long, global = true, value_name = "ADDRESS", help = BIND_HELP)]
    bind: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(ServeArgs),
    Run(run::RunArgs),
    Tail(tail::TailArgs),
    Top(top::TopArgs),
    Health(health::HealthArgs),
    Doctor(doctor::DoctorArgs),
    Load(load::LoadArgs),
    Token(token::TokenArgs),
    CheckConfig(check_config::CheckConfigArgs),
    Migrate(migrate::MigrateArgs),
    Backup(backup::BackupArgs),
    Rebuild(rebuild::RebuildArgs),
    Purge(purge::PurgeArgs),
}

/// Run the service (what happens without a command, too)
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sentinel serve
  sentinel serve --bind tcp://127.0.0.1:8099 --database sqlite:///tmp/try-it

Stops in order on TERM or INT. `sentinel check-config` shows every setting and where it comes from.")]
struct ServeArgs {}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            // Help and version arrive here too, and are no failure. A reader that is gone wants no words.
            if !error.use_stderr() {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            // What was typed is repeated, and it may have been pasted from anywhere.
            for line in error.render().to_string().lines() {
                let _ = writeln!(io::stderr().lock(), "{}", words::escaped(line));
            }
            return ExitCode::from(Code::Usage.number());
        }
    };
    match dispatch(command_line) {
        Ok(code) => code,
        Err(error) => {
            let words = format!("{error:#}");
            for line in words.lines() {
                let _ = writeln!(io::stderr().lock(), "sentinel: {}", words::escaped(line));
            }
            exit::code_of(&error).into()
        }
    }
}

fn dispatch(command_line: CommandLine) -> anyhow::Result<ExitCode> {
    let InsteadOfEnvironment { database, bind } = command_line.instead;
    let overrides = Overrides { database, bind };
    match command_line.command {
        None | Some(Command::Serve(ServeArgs {})) => {
            let (config, warnings) = load(overrides)?;
            serve::run(&config, &warnings)?;
        }
        Some(Command::Run(args)) => return Ok(run::run(args, overrides)?.into()),
        Some(Command::Tail(args)) => return Ok(tail::run(&args, overrides)?.into()),
        Some(Command::Top(args)) => return Ok(top::run(&args, overrides)?.into()),
        Some(Command::Health(args)) => health::run(&args, overrides)?,
        Some(Command::Doctor(args)) => doctor::run(&args, overrides)?,
        Some(Command::Load(args)) => {
            let token = bearer::token(overrides.clone())?;
            let tls = args.url.starts_with("https:").then(|| client::tls(overrides)).transpose()?;
            load::run(args, token, tls)?;
        }
        Some(Command::Token(args)) => token::run(&args, overrides)?,
        Some(Command::CheckConfig(args)) => check_config::run(&args, overrides)?,
        Some(Command::Migrate(args)) => of_a_command(migrate::run(&args, overrides))?,
        Some(Command::Backup(args)) => of_a_command(backup::run(&args, overrides))?,
        Some(Command::Rebuild(args)) => of_a_command(rebuild::run(&args, overrides))?,
        Some(Command::Purge(args)) => of_a_command(purge::run(&args, overrides))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What of the store would end a thread of the service is, in a command without threads, just what it did not get.
fn of_a_command(done: anyhow::Result<()>) -> anyhow::Result<()> {
    done.map_err(|error| match exit::code_of(&error) {
        Code::ThreadEnded => Exit::new(Code::Failed, format!("{error:#}")).into(),
        _ => error,
    })
}

/// Refuses a command that is about a store where there is none, or none that this user may see.
fn store_there(config: &Config) -> Result<(), Exit> {
    let folder = config.data_folder.display();
    let why = match std::fs::metadata(config.data_folder.join("log.db")) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            format!(
                "{folder} holds no store (no log.db is there): name its folder with --database sqlite://PATH"
            )
        }
        Err(error) => format!(
            "the store in {folder} cannot be seen ({error}): run this as the service's user or root"
        ),
    };
    Err(Exit::new(Code::Unavailable, why))
}

/// The configuration, or every problem of it and exit code 78.
fn load(overrides: Overrides) -> Result<(Config, Vec<Warning>), Exit> {
    Config::from_environment(overrides)
        .map_err(|problems| Exit::new(Code::Configuration, problems.to_string()))
}

/// Refuses a command that is about the files of the embedded store.
fn embedded_only(config: &Config, instead: &str) -> Result<(), Exit> {
    match config.database {
        Database::Embedded => Ok(()),
        Database::Oracle(_) => Err(Exit::new(
            Code::Configuration,
            format!(
                "this is for the embedded store, and an Oracle database is configured: {instead}"
            ),
        )),
    }
}

/// Prints the result of a command. A reader that has gone away (`| head`) is no failure.
fn print(text: &str) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// The time of day.
fn now() -> Timestamp {
    Timestamp::from_micros(jiff::Timestamp::now().as_microsecond())
}

/// A span of time from the command line, such as `30s`, `5m` or `1h 30m`.
fn pause(text: &str) -> Result<Duration, String> {
    let span: Option<jiff::SignedDuration> = text.parse().ok();
    span.and_then(|span| Duration::try_from(span).ok())
        .ok_or_else(|| "write it as 30s, 5m or 1h".to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        let mut root = CommandLine::command();
        root.build();
        let commands = root.get_subcommands().filter(|it| it.get_name() != "help").cloned();
        for mut command in commands.collect::<Vec<_>>().into_iter().chain([root]) {
            let name = command.get_name().to_string();
            assert!(command.get_about().is_some(), "{name} says what it does");
            let help = command.render_long_help().to_string();
            assert!(
                help.contains("Example") && help.contains("  sentinel"),
                "{name} has an example"
            );
        }
    }

    #[test]
    fn a_command_after_two_dashes_is_taken_as_it_is() {
        let line =
            "sentinel --database sqlite://x run --name n --heartbeat 10s -- ls --help -- --name";
        let parsed = CommandLine::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(parsed.instead.database.as_deref(), Some("sqlite://x"));
        assert!(matches!(parsed.command, Some(Command::Run(_))));
        for bad in ["sentinel run --name n ls", "sentinel run -- ls", "sentinel run --name= -- ls"]
        {
            assert!(CommandLine::try_parse_from(bad.split(' ')).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pause_has_a_unit() {
        assert_eq!(pause("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(pause("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "90", "-1s", "soon"] {
            assert!(pause(bad).is_err(), "{bad:?}");
        }
    }
}
