//! The machine that the doctor runs on: open files and the clock. This module judges what the system says of itself.

use std::time::{Duration, SystemTime};

use crate::config::Config;
use crate::store::doctor::{Check, Finding};

const OPEN_FILES: Check = Check::new(
    "open files",
    "each connection is an open file, and beyond the limit new ones are refused",
);
const WALL_CLOCK: Check = Check::new(
    "wall clock",
    "a clock that is years off takes expired tokens and certificates for good, and good ones for expired",
);

/// Files that are open beside connections: the store's, the log's, sockets of our own.
const OTHER_FILES: usize = 100;
/// Time zones of careless copies, and a file system of another machine.
const AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let installed = std::env::current_exe().and_then(|path| path.metadata()?.modified());
    vec![judge_files(limit, config.connections_max), judge_clock(installed.ok(), SystemTime::now())]
}

/// None: no limit.
fn judge_files(limit: Option<u64>, connections_max: usize) -> Finding {
    let needed = u64::try_from(connections_max + OTHER_FILES).unwrap_or(u64::MAX);
    match limit {
        Some(limit) if limit < needed => OPEN_FILES.warn(
            format!("this shell allows {limit}, and SENTINEL_MAX_CONNECTIONS needs {needed}"),
            format!("ulimit -n {needed}   # or LimitNOFILE={needed} in the unit"),
        ),
        Some(limit) => OPEN_FILES.ok(format!("{limit} are allowed, {needed} are needed")),
        None => OPEN_FILES.ok("no limit"),
    }
}

/// It cannot be earlier than when this program was written to the disk.
fn judge_clock(installed: Option<SystemTime>, now: SystemTime) -> Finding {
    let told = |at: SystemTime| {
        jiff::Timestamp::try_from(at).map_or_else(|_| "?".to_string(), |at| format!("{at:.0}"))
    };
    let Some(installed) = installed else {
        return WALL_CLOCK.unknown(format!("it is {}; nothing to hold it against", told(now)));
    };
    if installed.duration_since(now).is_ok_and(|ahead| ahead > AHEAD_MAX) {
        return WALL_CLOCK.fail(
            format!("it is {}, and this program was installed at {}", told(now), told(installed)),
            "timedatectl set-ntp true && timedatectl timesync-status",
        );
    }
    WALL_CLOCK.ok(format!("{}, after this program was installed", told(now)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;

    #[test]
    fn the_machine_is_judged() {
        assert_eq!(judge_files(Some(1024), 924).verdict, Verdict::Ok);
        let few = judge_files(Some(1024), 925);
        assert_eq!(few.verdict, Verdict::Warn);
        assert!(few.mend.unwrap().starts_with("ulimit -n 1025"));
        assert_eq!(judge_files(None, 9).verdict, Verdict::Ok);
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 24 * 3600);
        assert_eq!(judge_clock(Some(at(20_000)), at(20_100)).verdict, Verdict::Ok);
        assert_eq!(judge_clock(Some(at(20_000)), at(19_000)).verdict, Verdict::Fail);
        assert_eq!(judge_clock(None, at(1)).verdict, Verdict::Unknown);
    }
}
