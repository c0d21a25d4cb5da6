//! What the database says of itself: its clock, its settings, its queues. This module asks it, for whoever looks now and
//! then.

use std::time::Duration;

use oracle::Connection;

use super::bind::{self, Bind};
use super::health::{Health, QueueState};
use super::sql::{statement, text};
use crate::domain::time::Timestamp;

/// The clock of the database, in UTC.
pub(super) fn now(connection: &Connection) -> oracle::Result<Timestamp> {
    let found = bind::query(connection, &text(statement!("database_time"), &[]), &[], 1, |row| {
        bind::time(row, "now_utc")
    })?;
    found.into_iter().next().ok_or_else(|| {
        oracle::Error::new(oracle::ErrorKind::Other, "no time came back".to_string())
    })
}

/// Compares the database's clock with ours.
pub(super) fn compare_clocks(connection: &Connection, health: &Health) -> oracle::Result<()> {
    let before = health.own_clock();
    let theirs = now(connection)?;
    health.compare_clocks(theirs, before, health.own_clock());
    Ok(())
}

/// A fact about the installation.
pub(super) fn setting(connection: &Connection, name: &str) -> oracle::Result<Option<String>> {
    let binds = [Bind::text(name, 100)];
    let found = bind::query(connection, &text(statement!("setting"), &[]), &binds, 1, |row| {
        bind::optional_text(row, "value")
    })?;
    Ok(found.into_iter().next().flatten())
}

/// All queues that the package tells of: the main one and its exception queue.
pub(super) fn queues(connection: &Connection) -> oracle::Result<Vec<QueueState>> {
    let is_yes = |word: String| word.trim().eq_ignore_ascii_case("yes");
    let binds = [Bind::Cursor];
    bind::call_for_rows(connection, &text(statement!("queue_state"), &[]), &binds, |row| {
        Ok(QueueState {
            name: bind::text(row, "QUEUE_NAME")?,
            takes: is_yes(bind::text(row, "ENQUEUE_ENABLED")?),
            gives: is_yes(bind::text(row, "DEQUEUE_ENABLED")?),
            ready: bind::count(row, "READY")?,
            waiting: bind::count(row, "WAITING")?,
            expired: bind::count(row, "EXPIRED")?,
            oldest: bind::optional_time(row, "OLDEST_ENQ_TIME")?,
        })
    })
}

/// The queue that messages come through: an exception queue's name begins with `AQ$`.
pub(super) fn main_queue(connection: &Connection) -> oracle::Result<Option<QueueState>> {
    Ok(queues(connection)?.into_iter().find(|queue| !is_exception_queue(&queue.name)))
}

/// Whether a queue keeps what could not be delivered.
pub(super) fn is_exception_queue(name: &str) -> bool {
    name.rsplit('.').next().unwrap_or(name).trim_matches('"').starts_with("AQ$")
}

/// Where a right to look is missing it is tried again after so long.
pub(super) const BLIND_FOR: Duration = Duration::from_secs(3600);

/// Whether so long a pause is over, also where the clock was set back meanwhile.
pub(super) fn is_due(last: Option<Timestamp>, pause: Duration, now: Timestamp) -> bool {
    last.is_none_or(|last| now.since(last) >= pause || now < last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_queue_is_known_by_its_name() {
        for name in ["AQ$_SENTINEL_QUEUE_TAB_E", "SENTINEL.AQ$_SENTINEL_QUEUE_TAB_E"] {
            assert!(is_exception_queue(name), "{name}");
        }
        assert!(!is_exception_queue("SENTINEL.SENTINEL_QUEUE"));
    }

    #[test]
    fn a_pause_is_over_in_time_and_when_the_clock_was_set_back() {
        let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
        let pause = Duration::from_secs(5);
        assert!(is_due(None, pause, at(1)));
        assert!(!is_due(Some(at(10)), pause, at(14)));
        assert!(is_due(Some(at(10)), pause, at(15)));
        assert!(is_due(Some(at(10)), pause, at(9)));
    }
}
