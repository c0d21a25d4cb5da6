//! The command that is watched. This module starts it, passes signals on to it, and says how it ended.
//!
//! The command stays in our process group, so that job control, `nohup` and service managers work as without us.
//! A signal that somebody sends to us alone is passed on. One that the terminal raises (^C, ^\, hang-up) reaches
//! the whole group from the kernel, the command among it, so passing it on would double it. Whoever signals the
//! whole group (`kill -- -N`, `timeout`) does reach the command twice.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

/// What a shell answers when there is no such command.
const CODE_NOT_FOUND: u8 = 127;
/// What a shell answers when the command is there and cannot be started.
const CODE_NOT_STARTED: u8 = 126;
/// What a shell adds to the number of the signal that killed a command.
const CODE_SIGNAL: i32 = 128;

/// Signals that are passed on, with their names.
const PASSED_ON: [(i32, Signal, &str); 6] = [
    (SIGTERM, Signal::TERM, "SIGTERM"),
    (SIGINT, Signal::INT, "SIGINT"),
    (SIGHUP, Signal::HUP, "SIGHUP"),
    (SIGQUIT, Signal::QUIT, "SIGQUIT"),
    (SIGUSR1, Signal::USR1, "SIGUSR1"),
    (SIGUSR2, Signal::USR2, "SIGUSR2"),
];

/// How a command came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    /// Our own exit code too.
    pub(super) code: u8,
    /// What there is to say beside the code.
    pub(super) words: Option<String>,
}

/// Starts `command` with its output in pipes and everything else inherited.
pub(super) fn start(command: &[OsString]) -> io::Result<Child> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    Command::new(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// Waits until the child is over, and leaves it to be reaped: until then its number cannot be given to another
/// process, so that a signal passed on never reaches a stranger.
pub(super) fn wait_for_end(child: Pid) -> io::Result<()> {
    loop {
        match rustix::process::waitid(
            WaitId::Pid(child),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        ) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Ending {
    /// The end of a command that ran.
    pub(super) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self { code: u8::try_from(code).unwrap_or(u8::MAX), words: None },
            (None, Some(signal)) => {
                let code = u8::try_from(CODE_SIGNAL + signal).unwrap_or(u8::MAX);
                let known = PASSED_ON.iter().find(|(number, _, _)| *number == signal);
                let words = match known {
                    Some((_, _, name)) => format!("killed by {name}"),
                    None => format!("killed by signal {signal}"),
                };
                Self { code, words: Some(words) }
            }
            (None, None) => Self { code: u8::MAX, words: Some(status.to_string()) },
        }
    }

    /// The end of a command that could not be started.
    pub(super) fn not_started(program: &str, error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => CODE_NOT_FOUND,
            _ => CODE_NOT_STARTED,
        };
        Self { code, words: Some(format!("cannot start {program}: {error}")) }
    }
}

/// Catches the signals that are passed on, but for those that whoever started us has told us to ignore, as `nohup`
/// does: the command inherits that.
pub(super) fn catch_signals() -> io::Result<SignalsInfo<WithOrigin>> {
    let ignored = ignored_signals();
    let caught = PASSED_ON.iter().map(|(number, _, _)| *number);
    let caught = caught.filter(|number| ignored & (1 << (number - 1)) == 0);
    SignalsInfo::with_exfiltrator(caught.collect::<Vec<_>>(), WithOrigin::default())
}

/// The signals that are ignored, one bit each. Where /proc is not there, none are.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Passes a signal on to the child, which has not been reaped.
pub(super) fn pass_on(child: Pid, origin: &Origin) {
    let raised_by_terminal = origin.cause == Cause::Kernel;
    if raised_by_terminal && matches!(origin.signal, SIGINT | SIGQUIT | SIGHUP) {
        return;
    }
    if let Some((_, signal, _)) = PASSED_ON.iter().find(|(number, _, _)| *number == origin.signal) {
        // It may be over already, or run as somebody else by now: then there is nobody to tell.
        let _ = rustix::process::kill_process(child, *signal);
    }
}

/// Whether this signal asks us to come to an end.
pub(super) fn asks_to_end(origin: &Origin) -> bool {
    matches!(origin.signal, SIGTERM | SIGINT | SIGHUP | SIGQUIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_command_or_128_and_the_signal() {
        let exit = |code: i32| Ending::of(ExitStatus::from_raw(code << 8));
        assert_eq!(exit(0).code, 0);
        assert_eq!(exit(7), Ending { code: 7, words: None });
        let killed = Ending::of(ExitStatus::from_raw(SIGTERM));
        assert_eq!(killed, Ending { code: 143, words: Some("killed by SIGTERM".to_string()) });
        let crashed = Ending::of(ExitStatus::from_raw(11));
        assert_eq!(crashed.words.as_deref(), Some("killed by signal 11"));
    }

    #[test]
    fn a_command_that_cannot_start_answers_like_in_a_shell() {
        let missing = start(&["./no-such-command".into()]).unwrap_err();
        assert_eq!(Ending::not_started("./no-such-command", &missing).code, 127);
        let folder = start(&["/".into()]).unwrap_err();
        assert_eq!(Ending::not_started("/", &folder).code, 126);
    }
}
