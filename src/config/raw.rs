//! What the user typed. This module gathers it: it knows names, aliases, files with secrets and flags, and nothing
//! of what a value means.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use super::problems::{Problems, Warning};
use super::variables::{self, SURROUNDINGS, Support, VARIABLES, Variable};

/// Nobody's password is longer; a larger file was named by mistake.
pub(super) const SECRET_BYTES_MAX: usize = 64 * 1024;

/// What the command line says in place of the environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--database`
    pub database: Option<String>,
    /// `--bind`
    pub bind: Option<String>,
}

/// Everything outside the program that a configuration depends on, so that tests can bring their own.
pub struct Surroundings<'a> {
    /// The value of an environment variable.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
    /// The names of all environment variables, to find the misspelt ones.
    pub names: &'a [String],
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
    pub overrides: Overrides,
    pub cores: usize,
    /// Whether standard error is a terminal.
    pub terminal: bool,
}

impl Surroundings<'_> {
    /// Calls `with` with the surroundings of this process.
    pub(super) fn of_this_process<T>(
        overrides: Overrides,
        with: impl FnOnce(&Surroundings<'_>) -> T,
    ) -> T {
        // Names and values that are not UTF-8 keep a replacement character, which no valid value holds.
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let names: Vec<String> = std::env::vars_os().map(|(name, _)| text(name)).collect();
        with(&Surroundings {
            lookup: &|name| std::env::var_os(name).map(text),
            names: &names,
            read_file: &|path| std::fs::read_to_string(path),
            overrides,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            terminal: io::IsTerminal::is_terminal(&io::stderr()),
        })
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// The variable of this name.
    Environment(String),
    /// The file that the variable of this name names.
    File(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(name) => write!(f, "file named by {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// A value as the user typed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub value: String,
    pub origin: Origin,
}

/// What the user typed, by the first name of each setting. Nothing in it has been understood yet.
#[derive(Debug, Default)]
pub struct RawConfig {
    given: BTreeMap<&'static str, Given>,
    pub(super) bind: Option<String>,
    surroundings: BTreeMap<&'static str, String>,
}

impl RawConfig {
    /// Gathers the settings that are `wanted`, and notes what cannot be gathered.
    pub(super) fn gather(
        surroundings: &Surroundings<'_>,
        wanted: impl Fn(&str) -> bool,
        problems: &mut Problems,
        warnings: &mut Vec<Warning>,
    ) -> Self {
        let mut raw = Self { bind: surroundings.overrides.bind.clone(), ..Self::default() };
        for variable in VARIABLES.iter().filter(|variable| wanted(variable.name)) {
            if let Some(given) = gather_one(variable, surroundings, problems) {
                raw.given.insert(variable.name, given);
            }
        }
        if let Some(database) = &surroundings.overrides.database {
            let given = Given { value: database.clone(), origin: Origin::Flag("--database") };
            raw.given.insert("SENTINEL_DATABASE", given);
        }
        for name in SURROUNDINGS {
            if let Some(value) = set(surroundings, name) {
                raw.surroundings.insert(name, value);
            }
        }
        for name in surroundings.names {
            if name.starts_with("SENTINEL_") && !is_known(name) {
                let meant = match variables::nearest(name) {
                    Some(known) => format!("; is {known} meant?"),
                    None => String::new(),
                };
                warnings.push(Warning {
                    name: name.clone(),
                    what: format!("is no variable of this service and does nothing{meant}"),
                });
            }
        }
        raw
    }

    /// What was typed for the setting whose first name is `name`.
    pub(super) fn get(&self, name: &str) -> Option<&Given> {
        self.given.get(name)
    }

    /// A variable of the surroundings, such as `STATE_DIRECTORY`.
    pub(super) fn surrounding(&self, name: &str) -> Option<&str> {
        self.surroundings.get(name).map(String::as_str)
    }
}

/// An empty variable counts as unset: that is how templates switch a setting off.
fn set(surroundings: &Surroundings<'_>, name: &str) -> Option<String> {
    (surroundings.lookup)(name).filter(|value| !value.is_empty())
}

fn is_known(name: &str) -> bool {
    variables::find(name).is_some()
        || name
            .strip_suffix("_FILE")
            .and_then(variables::find)
            .is_some_and(|variable| variable.secret)
}

fn gather_one(
    variable: &'static Variable,
    surroundings: &Surroundings<'_>,
    problems: &mut Problems,
) -> Option<Given> {
    let first = set(surroundings, variable.name);
    let second = variable.alias.and_then(|alias| Some((alias, set(surroundings, alias)?)));
    let mut given = match (first, second) {
        (Some(value), Some((alias, other))) if value != other => {
            problems.add(
                format!("{} and {alias}", variable.name),
                "are two names of one setting and have different values; unset one of them",
            );
            return None;
        }
        (Some(value), _) => {
            Some(Given { value, origin: Origin::Environment(variable.name.to_string()) })
        }
        (None, Some((alias, value))) => {
            Some(Given { value, origin: Origin::Environment(alias.to_string()) })
        }
        (None, None) => None,
    };
    if let Some(file_name) = variable.file_name()
        && let Some(path) = set(surroundings, &file_name)
    {
        if given.is_some() {
            problems.add(
                format!("{} and {file_name}", variable.name),
                "are both set; unset one of them",
            );
            return None;
        }
        // What is refused anyway is not read: its own problem says enough.
        let value = if variable.support == Support::NotYet {
            path
        } else {
            match (surroundings.read_file)(Path::new(&path)) {
                Ok(text) if text.len() > SECRET_BYTES_MAX => {
                    problems.add(
                        file_name,
                        format!("{path} holds more than {SECRET_BYTES_MAX} bytes; name a file that holds the secret alone"),
                    );
                    return None;
                }
                Ok(text) if text.trim().is_empty() => {
                    problems.add(file_name, format!("{path} is empty; write the secret into it"));
                    return None;
                }
                Ok(text) => text.trim_end_matches(['\r', '\n']).to_string(),
                Err(error) => {
                    problems.add(
                        file_name,
                        format!(
                            "cannot read {path}: {error}; name a file that the service may read"
                        ),
                    );
                    return None;
                }
            }
        };
        given = Some(Given { value, origin: Origin::File(file_name) });
    }
    let given = given?;
    if given.value.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
        let name = match &given.origin {
            Origin::Environment(name) | Origin::File(name) => name.clone(),
            Origin::Default | Origin::Flag(_) => variable.name.to_string(),
        };
        problems.add(name, "holds a control character or is not UTF-8; write plain text");
        return None;
    }
    Some(given)
}
