//! How the program ends. This module is the one place that turns an error into an exit code, for scripts and
//! service managers: 2 for usage, else as in `sysexits.h`.

use std::fmt;
use std::process::ExitCode;

use crate::config::Problems;
use crate::store::StoreError;

/// Why the program ends. `sentinel run` is the exception: it ends with the code of its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A client command did not get what it asked for.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// The files of the store are damaged.
    DataDamaged,
    /// The store cannot be reached.
    Unavailable,
    /// A thread ended uninvited: a bug, or something that only a restart mends.
    ThreadEnded,
    /// The system refuses something: a port that is taken, a thread.
    System,
    /// An input or output error on a commit: nobody knows what reached the disk.
    Io,
    /// Another instance holds the embedded store.
    Locked,
    /// The configuration has problems.
    Configuration,
}

impl Code {
    /// The number that the caller sees.
    pub const fn number(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::DataDamaged => 65,
            Self::Unavailable => 69,
            Self::ThreadEnded => 70,
            Self::System => 71,
            Self::Io => 74,
            Self::Locked => 75,
            Self::Configuration => 78,
        }
    }
}

/// An error that knows its exit code, or the code that a chain of errors is to end with.
#[derive(Debug)]
pub struct Exit {
    pub code: Code,
    pub message: String,
}

impl Exit {
    /// Ends the program with `code` and says `message`.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

/// The exit code of an error: that of the first cause in its chain that has one.
pub fn code_of(error: &anyhow::Error) -> Code {
    let known = error.chain().find_map(|cause| {
        if let Some(exit) = cause.downcast_ref::<Exit>() {
            return Some(exit.code);
        }
        if cause.is::<Problems>() {
            return Some(Code::Configuration);
        }
        cause.downcast_ref::<StoreError>().map(code_of_store_error)
    });
    known.unwrap_or(Code::Failed)
}

fn code_of_store_error(error: &StoreError) -> Code {
    match error {
        StoreError::Io { .. } => Code::Io,
        StoreError::Corrupt { .. } => Code::DataDamaged,
        // The lock of the folder: within a running service a busy database is waited for.
        StoreError::Busy { .. } => Code::Locked,
        StoreError::NoSpace { .. }
        | StoreError::Disconnected { .. }
        | StoreError::Unreachable { .. } => Code::Unavailable,
        StoreError::Released { .. }
        | StoreError::Refused { .. }
        | StoreError::Unclear { .. }
        | StoreError::Other { .. } => Code::ThreadEnded,
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_found_below_whatever_was_said_about_it() {
        let source = || Box::from("disk");
        let io = anyhow::Error::from(StoreError::Io { call: "accept", source: source() });
        assert_eq!(code_of(&io.context("intake stopped")).number(), 74);
        let corrupt = StoreError::Corrupt { what: "log.db is damaged".to_string() };
        assert_eq!(code_of(&corrupt.into()).number(), 65);
        let gone = StoreError::Disconnected { call: "open", source: source() };
        assert_eq!(code_of(&gone.into()).number(), 69);
        let unreachable = StoreError::Unreachable { call: "open", source: source() };
        assert_eq!(code_of(&unreachable.into()).number(), 69);
        let locked = Exit::new(Code::Locked, "another instance holds the folder");
        assert_eq!(code_of(&anyhow::Error::from(locked).context("cannot start")).number(), 75);
        assert_eq!(code_of(&Problems::default().into()).number(), 78);
        assert_eq!(code_of(&anyhow::anyhow!("anything else")).number(), 1);
    }
}
