//! Processes whose session of the database is gone. This module finds them and says which may be judged by now.
//!
//! A session that ends may have said its last word a moment before, and that may still be in the queue. So a process
//! is told only once everything received since its session was found gone has been applied: the caller's watermark
//! lies behind that moment, and the queue holds nothing as old and nothing that waits for another delivery. In doubt
//! nobody is told, and the deadline goes on to hold.

use std::collections::HashMap;
use std::time::Duration;

use oracle::Connection;

use super::bind::{self, Bind};
use super::errors::{self, Class};
use super::facts::{self, BLIND_FOR};
use super::health::QueueState;
use super::logs;
use super::overdue::Judged;
use super::session::Session;
use super::sql::{self, fill, statement, text};
use crate::domain::time::Timestamp;
use crate::store::Result;

/// Between two looks: each asks the database about every session that is waited for.
const LOOK_PAUSE: Duration = Duration::from_secs(3);

/// Tenant and process, as the database names them.
type Name = (String, String);

/// What is known of sessions that are gone.
#[derive(Default)]
pub(super) struct Watch {
    looked_at: Option<Timestamp>,
    /// When each process was first found without its session.
    gone_at: HashMap<Name, Timestamp>,
    /// When the right to look was found missing.
    blind_at: Option<Timestamp>,
}

impl Watch {
    /// The processes that are to be judged at `now`, where everything received before `until` has been applied.
    pub(super) fn look(
        &mut self,
        session: &mut Session,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Judged>> {
        const CALL: &str = "look for sessions";
        let is_blind = !facts::is_due(self.blind_at, BLIND_FOR, now);
        if is_blind || !facts::is_due(self.looked_at, LOOK_PAUSE, now) {
            return Ok(Vec::new());
        }
        self.looked_at = Some(now);
        let gone = match dead_sessions(session.ready(CALL)?, limit) {
            Ok(gone) => gone,
            Err(error) if errors::class_of(&error) == Class::Missing => {
                let told = session.fail(CALL, &error);
                if self.blind_at.is_none() {
                    log::warn!(
                        "processes whose session is gone are found by their deadline alone: {told}"
                    );
                }
                self.blind_at = Some(now);
                return Ok(Vec::new());
            }
            Err(error) => return Err(session.fail(CALL, &error)),
        };
        self.blind_at = None;
        self.note(gone, now);
        if !self.gone_at.values().any(|at| *at < until) {
            return Ok(Vec::new());
        }
        let queues = session.ask(CALL, facts::queues)?;
        let due = self.due(until, &queues);
        session.ask(CALL, |connection| states(connection, &due))
    }

    /// Takes note of who is found without a session at `now`. Who is not found any more has been heard again.
    fn note(&mut self, gone: Vec<Name>, now: Timestamp) {
        let known = std::mem::take(&mut self.gone_at);
        self.gone_at = gone
            .into_iter()
            .map(|name| {
                let at = known.get(&name).map_or(now, |at| *at);
                (name, at)
            })
            .collect();
    }

    /// Of whom nothing can be on its way any more, sorted.
    fn due(&self, until: Timestamp, queues: &[QueueState]) -> Vec<Name> {
        // What waits for another delivery has no time to compare.
        if queues.iter().any(|queue| queue.waiting > 0 || queue.expired > 0) {
            return Vec::new();
        }
        let oldest = queues.iter().filter(|queue| queue.ready > 0).filter_map(|queue| queue.oldest);
        let oldest = oldest.min();
        let is_due = |at: Timestamp| at < until && oldest.is_none_or(|oldest| oldest > at);
        let mut due: Vec<Name> = self
            .gone_at
            .iter()
            .filter(|(_, at)| is_due(**at))
            .map(|(name, _)| name.clone())
            .collect();
        due.sort_unstable();
        due
    }
}

fn dead_sessions(connection: &Connection, limit: usize) -> oracle::Result<Vec<Name>> {
    let binds = [Bind::size(limit), Bind::Cursor];
    bind::call_for_rows(connection, &text(statement!("dead_sessions"), &[]), &binds, |row| {
        Ok((bind::text(row, "TENANT_ID")?, bind::text(row, "PROCESS_ID")?))
    })
}

fn states(connection: &Connection, due: &[Name]) -> oracle::Result<Vec<Judged>> {
    let mut judged = Vec::with_capacity(due.len());
    for portion in due.chunks(sql::LIST_MAX) {
        let length = sql::list_length(portion.len());
        let ask =
            sql::repeated(&text(statement!("deserted"), &[]), "(:tenant_id, :process_id)", length);
        let binds: Vec<Bind<'_>> = fill(portion, length)
            .flat_map(|(tenant, process)| [Bind::text(tenant, 50), Bind::text(process, 100)])
            .collect();
        let found = bind::query(connection, &ask, &binds, portion.len(), |row| {
            let name = (bind::text(row, "tenant_id")?, bind::text(row, "process_id")?);
            Ok((name, bind::optional_text(row, "state_digest")?))
        })?;
        for ((tenant, process), digest) in found {
            let newest = logs::newest(connection, &tenant, &process)?;
            judged.push((tenant, process, digest, newest));
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    fn name(process: &str) -> Name {
        ("acme".to_string(), process.to_string())
    }

    fn queue(ready: u64, waiting: u64, expired: u64, oldest: Option<i64>) -> QueueState {
        let (takes, gives, name) = (true, true, "Q".to_string());
        QueueState { name, takes, gives, ready, waiting, expired, oldest: oldest.map(at) }
    }

    #[test]
    fn a_process_is_told_once_all_that_its_session_said_is_applied() {
        let mut watch = Watch::default();
        watch.note(vec![name("p"), name("q")], at(100));
        watch.note(vec![name("q"), name("r")], at(103));
        assert_eq!(watch.gone_at[&name("q")], at(100), "found gone when it was first found");
        let idle = [queue(0, 0, 0, None), queue(0, 0, 0, None)];
        assert_eq!(watch.due(at(100), &idle), [], "the watermark does not lie behind it");
        assert_eq!(watch.due(at(101), &idle), [name("q")]);
        assert_eq!(watch.due(at(104), &idle), [name("q"), name("r")]);
        assert_eq!(watch.due(at(104), &[queue(1, 0, 0, Some(99))]), [], "it may be its last word");
        assert_eq!(watch.due(at(104), &[queue(1, 0, 0, Some(102))]), [name("q")]);
        for doubtful in [queue(0, 1, 0, None), queue(0, 0, 1, None)] {
            assert_eq!(watch.due(at(104), &[queue(0, 0, 0, None), doubtful]), []);
        }
    }
}
