//! The queue: whether it is open, what waits in it and for how long, how often it delivers, and how much room it takes.
//! This module asks `sentinel_svc` for the first and the dictionary for the rest.

use std::time::Duration;

use super::super::bind::{self, Bind};
use super::super::health::QueueState;
use super::super::sql::statement;
use super::super::{errors, facts};
use super::Look;
use crate::domain::time::Timestamp;
use crate::store::doctor::{Check, Finding};

const QUEUE: Check = Check::new(
    "queue",
    "a stopped queue takes no reports of PL/SQL and no posted events, or hands none to the service",
);
const BACKLOG: Check = Check::new(
    "backlog",
    "what waits in the queue is kept, but lists, streams and expiries are behind until it is applied",
);
const EXCEPTIONS: Check = Check::new(
    "exception queue",
    "what failed four times lies here until the service sweeps it into the same rules as everything else",
);
const RETRIES: Check = Check::new(
    "queue retries",
    "with too few a hiccup sends messages to the exception queue, with too many a bad one holds up the others",
);
const ROOM: Check = Check::new(
    "queue room",
    "a classic queue's segments grow with every message that passes, and each dequeue reads them",
);

/// More messages than this are no passing burst.
const READY_MAX: u64 = 100_000;
/// A message that waits longer than this is behind; longer than that, nobody takes any.
const AGE_WARNS: Duration = Duration::from_secs(60);
const AGE_FAILS: Duration = Duration::from_secs(900);
/// What the scripts say: deliveries after the first, and seconds between them.
const MAX_RETRIES: i64 = 3;
const RETRY_DELAY_S: i64 = 10;
/// Below this nobody cares.
const ROOM_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// A message with its entries takes some kilobytes; a segment that has ten times that for each is mostly air.
const MESSAGE_BYTES: u64 = 4 * 1024;
const AIR: u64 = 10;

pub(super) fn examine(look: &Look<'_>) -> Vec<Finding> {
    let now = look.now();
    let queues = match facts::queues(look.connection) {
        Ok(queues) => queues,
        Err(error) => {
            let words = errors::clean(&error.to_string());
            let how = how_to_reach(&look.owner, &look.user, errors::ora_in_text(&words));
            return vec![QUEUE.fail(words, how)];
        }
    };
    if queues.is_empty() {
        return vec![
            QUEUE.fail("there is none", "sentinel migrate   # as the owner of the schema"),
        ];
    }
    let mut findings = Vec::new();
    let mut messages = 0;
    for queue in &queues {
        messages += queue.ready + queue.waiting + queue.expired;
        if facts::is_exception_queue(&queue.name) {
            findings.push(judge_exceptions(queue, &look.owner));
        } else {
            findings.push(judge_queue(queue, &look.owner));
            findings.push(judge_backlog(queue, now));
        }
    }
    findings.extend(settings(look, messages));
    findings
}

/// What opens the way to `sentinel_svc`, the procedure that every grant of the service's user leads to.
fn how_to_reach(owner: &str, user: &str, code: Option<i32>) -> String {
    match code {
        Some(6550 | 942 | 1031 | 4043) => {
            format!("GRANT EXECUTE ON {owner}.SENTINEL_SVC TO {user};")
        }
        Some(4063 | 4068 | 6508) => format!("ALTER PACKAGE {owner}.SENTINEL_SVC COMPILE BODY;"),
        _ => "sentinel migrate --check   # as the owner of the schema".to_string(),
    }
}

fn plain(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name).trim_matches('"')
}

fn start(owner: &str, name: &str, enqueue: &str) -> String {
    let name = plain(name);
    format!(
        "BEGIN DBMS_AQADM.START_QUEUE(queue_name => '{owner}.{name}', enqueue => {enqueue}, dequeue => TRUE); END;\n/"
    )
}

fn judge_queue(queue: &QueueState, owner: &str) -> Finding {
    let word = |open| if open { "open" } else { "STOPPED" };
    let found =
        format!("{}: enqueue {}, dequeue {}", queue.name, word(queue.takes), word(queue.gives));
    if queue.takes && queue.gives {
        QUEUE.ok(found)
    } else {
        QUEUE.fail(found, start(owner, &queue.name, "TRUE"))
    }
}

fn judge_backlog(queue: &QueueState, now: Timestamp) -> Finding {
    const HOW: &str = "sentinel health --ready   # says whether a listener takes them, and what keeps it from that";
    let age = queue.oldest.filter(|_| queue.ready > 0).map(|oldest| now.since(oldest));
    let oldest =
        age.map_or_else(String::new, |age| format!(", the oldest {} s old", age.as_secs()));
    let found = format!("{} ready, {} waiting for a retry{oldest}", queue.ready, queue.waiting);
    match age.unwrap_or_default() {
        age if age > AGE_FAILS => BACKLOG.fail(found, HOW),
        age if age > AGE_WARNS || queue.ready > READY_MAX => BACKLOG.warn(found, HOW),
        _ => BACKLOG.ok(found),
    }
}

fn judge_exceptions(queue: &QueueState, owner: &str) -> Finding {
    let left = queue.expired + queue.ready;
    let found = format!("{}: {left} messages", queue.name);
    if !queue.gives {
        return EXCEPTIONS
            .fail(format!("{found}, dequeue STOPPED"), start(owner, &queue.name, "FALSE"));
    }
    if left > 0 {
        return EXCEPTIONS.warn(
            found,
            "sentinel health --ready   # a service that runs and is well sweeps it within seconds",
        );
    }
    EXCEPTIONS.ok(found)
}

/// What the dictionary says of the queue: the settings, then the room.
fn settings(look: &Look<'_>, messages: u64) -> Vec<Finding> {
    let binds = [Bind::text(&look.owner, 128)];
    let seen = look.ask(RETRIES, "dba_queues", statement!("doctor_queues"), &binds, |row| {
        Ok((
            bind::text(row, "queue_name")?,
            bind::text(row, "queue_table")?,
            [bind::integer(row, "max_retries")?, bind::integer(row, "retry_delay")?],
        ))
    });
    let (mut findings, mut table) = (Vec::new(), "SENTINEL_QUEUE_TAB".to_string());
    match seen {
        Ok(seen) => {
            let ours = |name: &str| {
                look.settings.queue.is_empty() || name.eq_ignore_ascii_case(&look.settings.queue)
            };
            match seen.into_iter().find(|(name, ..)| ours(name)) {
                Some((name, its_table, retries)) => {
                    table = its_table;
                    findings.push(judge_retries(&look.owner, &name, retries));
                }
                None => {
                    findings.push(RETRIES.unknown("not judged: the dictionary has no such queue"))
                }
            }
        }
        Err(finding) => findings.push(finding),
    }
    let (dequeue, time) = (format!("AQ$_{table}_I"), format!("AQ$_{table}_T"));
    let names = [&look.owner, &table, &dequeue, &time];
    let binds = names.map(|name| Bind::text(name, 128));
    let room = look.ask(ROOM, "dba_segments", statement!("doctor_queue_segments"), &binds, |row| {
        Ok((bind::text(row, "segment_name")?, bind::count(row, "segment_bytes")?))
    });
    findings.push(match room {
        Ok(segments) => judge_room(&look.owner, &table, messages, &segments),
        Err(finding) => finding,
    });
    findings
}

fn judge_retries(owner: &str, name: &str, [retries, delay_s]: [i64; 2]) -> Finding {
    let found = format!("{name}: {retries} retries, {delay_s} s apart");
    if (retries, delay_s) == (MAX_RETRIES, RETRY_DELAY_S) {
        return RETRIES.ok(found);
    }
    RETRIES.warn(
        found,
        format!(
            "BEGIN DBMS_AQADM.ALTER_QUEUE(queue_name => '{owner}.{name}', max_retries => {MAX_RETRIES}, \
             retry_delay => {RETRY_DELAY_S}); END;\n/"
        ),
    )
}

fn judge_room(owner: &str, table: &str, messages: u64, segments: &[(String, u64)]) -> Finding {
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let found: Vec<String> =
        segments.iter().map(|(name, bytes)| format!("{name} {} MiB", mib(*bytes))).collect();
    let found = format!("{messages} messages in {}", found.join(", "));
    let most = ROOM_BYTES_MIN.max(messages.saturating_mul(MESSAGE_BYTES * AIR));
    let how: Vec<String> = segments
        .iter()
        .filter(|(_, bytes)| *bytes > most)
        .map(|(name, _)| shrink(owner, table, name))
        .collect();
    if how.is_empty() { ROOM.ok(found) } else { ROOM.warn(found, how.join("\n")) }
}

/// An index is pressed together under load, and gives its room back. The table is emptied only when nothing is in it:
/// purging without a condition truncates it.
fn shrink(owner: &str, table: &str, segment: &str) -> String {
    if segment == table {
        return format!(
            "-- with the enqueue side stopped and 0 messages left, else they are lost:\n\
             DECLARE o DBMS_AQADM.AQ$_PURGE_OPTIONS_T; BEGIN o.block := TRUE; \
             DBMS_AQADM.PURGE_QUEUE_TABLE('{owner}.{table}', NULL, o); END;\n/"
        );
    }
    format!(
        "ALTER INDEX {owner}.{segment} COALESCE;\nALTER INDEX {owner}.{segment} SHRINK SPACE;   -- waits for a quiet moment"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;

    #[test]
    fn a_queue_is_judged_by_its_doors_its_age_and_what_failed() {
        let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
        let queue = |takes, gives, ready, expired| QueueState {
            name: "SENTINEL.Q".into(),
            takes,
            gives,
            ready,
            waiting: 0,
            expired,
            oldest: Some(at(1000)),
        };
        let table = [
            (judge_queue(&queue(true, true, 5, 0), "S"), Verdict::Ok),
            (judge_queue(&queue(false, true, 5, 0), "S"), Verdict::Fail),
            (judge_queue(&queue(true, false, 5, 0), "S"), Verdict::Fail),
            (judge_backlog(&queue(true, true, 0, 0), at(9999)), Verdict::Ok),
            (judge_backlog(&queue(true, true, 5, 0), at(1060)), Verdict::Ok),
            (judge_backlog(&queue(true, true, 5, 0), at(1061)), Verdict::Warn),
            (judge_backlog(&queue(true, true, 5, 0), at(1901)), Verdict::Fail),
            (judge_backlog(&queue(true, true, READY_MAX + 1, 0), at(1000)), Verdict::Warn),
            (judge_exceptions(&queue(false, true, 0, 0), "S"), Verdict::Ok),
            (judge_exceptions(&queue(false, true, 0, 1), "S"), Verdict::Warn),
            (judge_exceptions(&queue(false, false, 0, 0), "S"), Verdict::Fail),
            (judge_retries("S", "Q", [3, 10]), Verdict::Ok),
            (judge_retries("S", "Q", [0, 10]), Verdict::Warn),
        ];
        for (finding, wanted) in table {
            assert_eq!(finding.verdict, wanted, "{finding:?}");
            assert_eq!(finding.mend.is_some(), wanted > Verdict::Unknown, "{finding:?}");
        }
        let stopped = judge_queue(&queue(true, false, 0, 0), "S").mend.unwrap();
        assert!(stopped.contains("START_QUEUE(queue_name => 'S.Q', enqueue => TRUE"), "{stopped}");
    }

    #[test]
    fn air_is_told_by_segment_and_a_full_queue_is_none() {
        let segments = |table: u64, index: u64| {
            [("T".to_string(), table << 20), ("AQ$_T_I".to_string(), index << 20)]
        };
        assert_eq!(judge_room("S", "T", 0, &segments(10, 60)).verdict, Verdict::Ok);
        let bloated = judge_room("S", "T", 10, &segments(10, 900));
        assert_eq!(bloated.verdict, Verdict::Warn);
        assert!(bloated.mend.unwrap().starts_with("ALTER INDEX S.AQ$_T_I COALESCE;"));
        assert_eq!(judge_room("S", "T", 100_000, &segments(900, 900)).verdict, Verdict::Ok);
        assert!(
            judge_room("S", "T", 0, &segments(900, 1)).mend.unwrap().contains("PURGE_QUEUE_TABLE")
        );
    }
}
