//! Housekeeping of the Oracle store: who is overdue, what retention drops, and how the queue and the clocks stand. This
//! module serves the keeper and the reaper.
//!
//! Any number of instances do this at once, and none leads: a conditional update touches a row once, a portion that
//! another one deletes is passed over, and an expiry that two judge is one event (law 4).

use std::sync::Arc;
use std::time::Duration;

use super::bind::{self, Bind};
use super::deserted::Watch;
use super::errors::{self, Class};
use super::facts;
use super::health::{Health, OUT_OF_REACH};
use super::overdue::{self, Unjudged};
use super::session::Session;
use super::sql::{statement, text};
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::process::Status;
use crate::domain::time::Timestamp;
use crate::store::{KeeperSession, Overdue, Result, StoreError, Upkeep};

/// Between two looks at the queue and the clock: counting messages is not free.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// Between two rounds of forgetting old keys.
const FORGET_PAUSE: Duration = Duration::from_secs(60);
/// Between two searches for old rows in tables without partitions, each of which may read much.
const SWEEP_PAUSE: Duration = Duration::from_secs(3600);
/// Rows of one portion of a sweep.
const PORTION_ROWS: usize = 5000;
/// Portions of old keys in one round of upkeep.
const PORTIONS_MAX: usize = 10;

/// The session of keeper or reaper.
pub(super) struct Keeper {
    session: Session,
    health: Arc<Health>,
    /// How long keys and event ids are remembered.
    window: Duration,
    looked_at: Option<Timestamp>,
    forgot_at: Option<Timestamp>,
    /// When the sweep of the big tables last found nothing more.
    swept_at: Option<Timestamp>,
    watch: Watch,
    unjudged: Unjudged,
}

impl Keeper {
    pub(super) fn new(session: Session, health: Arc<Health>, window: Duration) -> Self {
        let watch = Watch::default();
        let unjudged = Unjudged::default();
        let (looked_at, forgot_at, swept_at) = (None, None, None);
        Self { session, health, window, looked_at, forgot_at, swept_at, watch, unjudged }
    }

    /// Looks at clock and queue for everybody.
    fn look(&mut self) -> Result<()> {
        let health = Arc::clone(&self.health);
        let looked = self.session.ask("look at the queue", |connection| {
            facts::compare_clocks(connection, &health)?;
            facts::main_queue(connection)
        });
        match looked {
            Ok(queue) => {
                if let Some(queue) = queue {
                    self.health.note_queue(queue);
                }
                self.health.writes_go_through();
                Ok(())
            }
            Err(error) => {
                if matches!(error, StoreError::Disconnected { .. }) {
                    self.health.writes_are_refused(OUT_OF_REACH);
                }
                Err(error)
            }
        }
    }

    /// Forgets keys and event ids that are past the window.
    fn forget(&mut self, now: Timestamp) -> Result<u64> {
        let before = now.minus(self.window);
        let mut rows = 0;
        for statement in
            [statement!("delete_old_idempotency"), statement!("delete_old_event_identity")]
        {
            for _ in 0..PORTIONS_MAX {
                let deleted = self.delete("forget keys", statement, before, PORTION_ROWS)?;
                rows += deleted;
                if deleted == 0 {
                    break;
                }
            }
        }
        Ok(rows)
    }

    /// One portion of a sweep.
    fn delete(
        &mut self,
        call: &'static str,
        statement: &str,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64> {
        let sql = text(statement, &[]);
        let mut binds = vec![Bind::time(before)];
        if sql.contains(":again") {
            binds.push(Bind::time(before));
        }
        binds.push(Bind::size(limit));
        self.session.transact(call, |connection| bind::execute(connection, &sql, &binds))
    }

    /// Marks processes archived that are over.
    fn archive_processes(&mut self, before: Timestamp, limit: usize) -> Result<u64> {
        self.session.transact("archive", |connection| {
            let binds = [Bind::time(before), Bind::size(limit)];
            let ask = text(statement!("over_processes"), &[]);
            let mut over = bind::query(connection, &ask, &binds, limit, |row| {
                Ok((bind::text(row, "tenant_id")?, bind::text(row, "process_id")?))
            })?;
            over.sort_unstable();
            let names = |(tenant, process): &(String, String)| {
                vec![Bind::Owned(Some(tenant.clone()), 50), Bind::Owned(Some(process.clone()), 100)]
            };
            let rows: Vec<Vec<Bind<'_>>> = over
                .iter()
                .map(|over| {
                    let mut row = names(over);
                    row.push(Bind::time(before));
                    row
                })
                .collect();
            let archived =
                bind::write_all(connection, &text(statement!("archive_process"), &[]), &rows)?;
            // Those that came back to life meanwhile keep everything.
            let done: Vec<Vec<Bind<'_>>> = over
                .iter()
                .zip(&archived.counts)
                .filter(|(_, count)| **count > 0)
                .map(|(over, _)| names(over))
                .collect();
            bind::write_all(connection, &text(statement!("archive_registry"), &[]), &done)?;
            bind::write_all(connection, &text(statement!("archive_runs"), &[]), &done)?;
            Ok(u64::try_from(done.len()).unwrap_or(u64::MAX))
        })
    }

    /// Drops what is past retention of events and lines, by partition where that takes nothing that must stay.
    fn drop_old(&mut self, before: Timestamp, limit: usize) -> Result<u64> {
        let (partitioned, open) = self.session.ask("retention", |connection| {
            let partitioned = facts::setting(connection, "partitioning")?.as_deref() == Some("ON");
            let mut open = [false; 2];
            let asks = [statement!("open_old_events"), statement!("open_old_logs")];
            for (open, ask) in open.iter_mut().zip(asks) {
                let binds = [Bind::time(before)];
                let found = bind::query(connection, &text(ask, &[]), &binds, 1, |row| {
                    bind::integer(row, "id")
                })?;
                *open = !found.is_empty();
            }
            Ok((partitioned, open))
        })?;
        let mut touched = 0;
        for (table, statement, whole) in [
            ("EVENTS", statement!("delete_old_events"), !open[0]),
            ("PROCESS_LOGS", statement!("delete_old_logs"), !open[1]),
        ] {
            if partitioned && whole {
                touched += self.drop_partitions(table, before)?;
            } else {
                touched += self.delete("retention", statement, before, limit)?;
            }
        }
        Ok(touched)
    }

    fn drop_partitions(&mut self, table: &str, before: Timestamp) -> Result<u64> {
        const CALL: &str = "drop partitions";
        let connection = self.session.ready(CALL)?;
        let binds = [Bind::text(table, 128), Bind::time(before), Bind::Integer(None)];
        let dropped = bind::call(connection, &text(statement!("drop_partitions"), &[]), &binds)
            .and_then(|statement| statement.bind_value::<_, Option<i64>>(3));
        match dropped {
            Ok(count) => Ok(u64::try_from(count.unwrap_or(0)).unwrap_or(0)),
            // Somebody uses the table, or another instance is at it: the next round finds it.
            Err(error) if errors::class_of(&error) == Class::Contention => {
                let busy = self.session.fail(CALL, &error);
                log::debug!("{busy}");
                Ok(0)
            }
            // One that cannot go stays until somebody looks; everything else goes on meanwhile.
            Err(error)
                if matches!(
                    errors::class_of(&error),
                    Class::Partition | Class::Missing | Class::Unknown
                ) =>
            {
                let told = self.session.fail(CALL, &error);
                log::error!(
                    "old partitions of {table} stay: {:#}",
                    errors::clean(&error.to_string())
                );
                log::debug!("{told}");
                Ok(0)
            }
            Err(error) => Err(self.session.fail(CALL, &error)),
        }
    }
}

impl KeeperSession for Keeper {
    /// Up to the oldest message of the queue, too: what another session has taken and not settled is missing to whoever
    /// found the queue empty, and may be a sign of life.
    fn overdue(&mut self, until: Timestamp, limit: usize) -> Result<Vec<Overdue>> {
        const CALL: &str = "overdue";
        let mut found =
            self.session.ask(CALL, |connection| overdue::due(connection, until, limit))?;
        if !found.is_empty() {
            // Counting messages is not free, and hardly ever is anybody overdue.
            let queues = self.session.ask(CALL, facts::queues)?;
            let oldest = queues.iter().filter_map(|queue| queue.oldest).min();
            if let Some(oldest) = oldest.filter(|oldest| *oldest < until) {
                found =
                    self.session.ask(CALL, |connection| overdue::due(connection, oldest, limit))?;
            }
        }
        self.unjudged.part(found)
    }

    fn deserted(&mut self, until: Timestamp, limit: usize) -> Result<Vec<Overdue>> {
        let now = self.health.now();
        let found = self.watch.look(&mut self.session, now, until, limit)?;
        self.unjudged.part(found)
    }

    fn forget_session(&mut self, tenant: &TenantId, process: &ProcessId) -> Result<()> {
        self.session.transact("forget a session", |connection| {
            let binds = [Bind::text(tenant.as_str(), 50), Bind::text(process.as_str(), 100)];
            bind::execute(connection, &text(statement!("forget_session"), &[]), &binds).map(|_| ())
        })
    }

    fn put_off(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        deadline: Timestamp,
    ) -> Result<()> {
        self.session.transact("put off", |connection| {
            let binds = [
                Bind::time(deadline),
                Bind::text(tenant.as_str(), 50),
                Bind::text(process.as_str(), 100),
                Bind::time(deadline),
            ];
            bind::execute(connection, &text(statement!("put_off"), &[]), &binds).map(|_| ())
        })
    }

    fn archive(&mut self, before: Timestamp, limit: usize) -> Result<usize> {
        let limit = limit.max(1);
        let mut touched = self.archive_processes(before, limit)?;
        touched += self.delete("drop runs", statement!("delete_old_runs"), before, limit)?;
        if facts::is_due(self.swept_at, SWEEP_PAUSE, before) {
            let old = self.drop_old(before, PORTION_ROWS)?;
            let letters = statement!("delete_old_dead_letters");
            let letters = self.delete("drop dead letters", letters, before, PORTION_ROWS)?;
            touched += old + letters;
            if old + letters == 0 {
                self.swept_at = Some(before);
            }
        }
        Ok(usize::try_from(touched).unwrap_or(usize::MAX))
    }

    fn count_processes(&mut self) -> Result<Vec<(Status, u64)>> {
        let found = self.session.ask("count processes", |connection| {
            bind::query(connection, &text(statement!("count_processes"), &[]), &[], 8, |row| {
                Ok((bind::text(row, "status")?, bind::count(row, "processes")?))
            })
        })?;
        Ok(Status::ALL
            .into_iter()
            .map(|status| {
                let of = |(word, _): &&(String, u64)| Status::parse(word) == Some(status);
                (status, found.iter().filter(of).map(|(_, count)| count).sum())
            })
            .collect())
    }

    fn upkeep(&mut self, now: Timestamp) -> Result<Upkeep> {
        let mut trimmed_rows = 0;
        if facts::is_due(self.looked_at, LOOK_PAUSE, now) {
            self.looked_at = Some(now);
            self.look()?;
        }
        if facts::is_due(self.forgot_at, FORGET_PAUSE, now) {
            trimmed_rows = self.forget(now)?;
            self.forgot_at = Some(now);
        }
        // The database's space is its administrator's: it is not ours to see.
        Ok(Upkeep { free_bytes: u64::MAX, trimmed_rows, ..Upkeep::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sweep_has_its_parameters_in_order() {
        for file in [
            statement!("delete_old_runs"),
            statement!("delete_old_events"),
            statement!("delete_old_logs"),
            statement!("delete_old_dead_letters"),
            statement!("delete_old_idempotency"),
            statement!("delete_old_event_identity"),
        ] {
            let sql = text(file, &[]);
            let (before, rows) = (sql.find(":before").unwrap(), sql.find(":rows_max").unwrap());
            assert!(before < rows, "{sql}");
            if let Some(again) = sql.find(":again") {
                assert!(before < again && again < rows, "{sql}");
            }
            let parameters = 2 + usize::from(sql.contains(":again"));
            assert_eq!(sql.matches(':').count(), parameters, "{sql}");
        }
    }
}
