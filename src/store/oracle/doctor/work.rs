//! Whether the work gets on: dead letters, processes that nobody judges, errors that business code never saw. This
//! module reads the service's own tables.

use std::time::Duration;

use super::super::bind::{self, Bind};
use super::super::sql::statement;
use super::Look;
use crate::domain::time::Timestamp;
use crate::store::doctor::{Check, Finding};

const DEAD_LETTERS: Check = Check::new(
    "dead letters",
    "each is an event that was taken and has no effect until somebody replays it",
);
const REAPER: Check = Check::new(
    "reaper",
    "a process past its deadline that nobody judges looks alive although it may be lost",
);
const SDK: Check = Check::new(
    "package errors",
    "sentinel_pkg swallows its errors, so what it could not report is missing without a word",
);

/// A judgement takes seconds; after this long there is no reaper.
const OVERDUE_MAX: Duration = Duration::from_secs(300);
/// Errors of the package are told for so long.
const SDK_SINCE: Duration = Duration::from_secs(24 * 3600);

pub(super) fn examine(look: &Look<'_>) -> Vec<Finding> {
    let now = look.now();
    vec![dead_letters(look), reaper(look, now), package(look, now)]
}

fn dead_letters(look: &Look<'_>) -> Finding {
    let seen = look.ask(DEAD_LETTERS, "", statement!("doctor_dead_letters"), &[], |row| {
        Ok((bind::count(row, "letters")?, bind::optional_time(row, "newest_at")?))
    });
    match seen {
        Ok(seen) => {
            let (count, newest) = seen.into_iter().next().unwrap_or_default();
            judge_dead_letters(count, newest)
        }
        Err(finding) => finding,
    }
}

fn judge_dead_letters(count: u64, newest: Option<Timestamp>) -> Finding {
    if count == 0 {
        return DEAD_LETTERS.ok("none is open");
    }
    let newest = newest.map_or_else(String::new, |at| format!(", the newest of {at}"));
    DEAD_LETTERS.warn(
        format!("{count} are open{newest}"),
        "curl -H \"Authorization: Bearer $SENTINEL_TOKEN\" \"$SENTINEL_URL/v1/dead-letters?limit=5\"",
    )
}

fn reaper(look: &Look<'_>, now: Timestamp) -> Finding {
    let binds = [Bind::time(now.minus(OVERDUE_MAX))];
    let seen = look.ask(REAPER, "", statement!("doctor_overdue"), &binds, |row| {
        Ok((bind::count(row, "processes")?, bind::optional_time(row, "oldest_at")?))
    });
    match seen {
        Ok(seen) => {
            let (count, oldest) = seen.into_iter().next().unwrap_or_default();
            judge_reaper(count, oldest, now)
        }
        Err(finding) => finding,
    }
}

fn judge_reaper(count: u64, oldest: Option<Timestamp>, now: Timestamp) -> Finding {
    if count == 0 {
        return REAPER.ok("no process is past its deadline for longer than 5 minutes");
    }
    let ago = oldest.map_or(0, |oldest| now.since(oldest).as_secs() / 60);
    REAPER.warn(
        format!("{count} processes are past their deadline, the first for {ago} minutes: no reaper runs"),
        "systemctl restart sentinel   # on one instance at least; `sentinel health --ready` names its threads",
    )
}

fn package(look: &Look<'_>, now: Timestamp) -> Finding {
    let binds = [Bind::time(now.minus(SDK_SINCE))];
    let seen = look.ask(SDK, "", statement!("doctor_sdk_errors"), &binds, |row| {
        let code = bind::integer(row, "error_code")?;
        let (call, message) = (bind::text(row, "call_name")?, bind::text(row, "last_message")?);
        Ok(format!("{call}: {code}, {} times, {message}", bind::count(row, "error_count")?))
    });
    match seen {
        Ok(seen) => judge_package(&look.owner, &seen),
        Err(finding) => finding,
    }
}

fn judge_package(owner: &str, errors: &[String]) -> Finding {
    if errors.is_empty() {
        return SDK.ok("none within a day");
    }
    SDK.warn(
        format!("within a day: {}", errors.join("; ")),
        format!("SELECT * FROM {owner}.sdk_errors ORDER BY last_seen_at DESC;   -- each row names its ORA number"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;

    #[test]
    fn work_that_does_not_get_on_is_told() {
        let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
        let table = [
            (judge_dead_letters(0, None), Verdict::Ok),
            (judge_dead_letters(2, Some(at(5))), Verdict::Warn),
            (judge_reaper(0, None, at(900)), Verdict::Ok),
            (judge_reaper(1, Some(at(300)), at(900)), Verdict::Warn),
            (judge_package("S", &[]), Verdict::Ok),
            (judge_package("S", &["heartbeat: -1653".to_string()]), Verdict::Warn),
        ];
        for (finding, wanted) in table {
            assert_eq!(finding.verdict, wanted, "{finding:?}");
            assert_eq!(finding.mend.is_some(), wanted == Verdict::Warn);
        }
        assert!(judge_reaper(1, Some(at(300)), at(900)).found.contains("10 minutes"));
    }
}
