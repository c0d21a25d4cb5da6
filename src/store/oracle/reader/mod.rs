//! Answers questions from the database. This module is the read session of the Oracle store: keyset pages, with the
//! tenant in every statement.

mod dead_letters;
mod events;
mod processes;
mod streams;

use std::sync::Arc;

use oracle::Connection;

use super::health::Health;
use super::session::Session;
use super::{facts, logs};
use crate::domain::dead_letter::DeadLetter;
use crate::domain::ids::{EventId, ProcessId, StreamKey, TenantId};
use crate::domain::process::{Policy, RunRow};
use crate::store::{
    self, Cursor, DeadLetterFilter, EventFilter, LogFilter, Page, Paged, ProcessFilter,
    ProcessView, Received, Result, StoreError, StoredEvent, StoredLog, StreamState,
};

/// The read session.
pub(super) struct Reader {
    session: Session,
    health: Arc<Health>,
    policy: Policy,
}

/// A value that no door of ours lets through.
fn foreign(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt {
        what: format!("the database holds what this program never writes: {error}"),
    }
}

impl Reader {
    pub(super) fn new(session: Session, health: Arc<Health>, policy: Policy) -> Self {
        Self { session, health, policy }
    }

    fn ask<T>(
        &mut self,
        call: &'static str,
        tenant: &TenantId,
        work: impl Fn(&Connection) -> oracle::Result<T>,
    ) -> Result<T> {
        self.session.for_tenant(call, tenant)?;
        self.session.ask(call, work)
    }
}

impl store::Reader for Reader {
    fn status(&mut self, tenant: &TenantId, process: &ProcessId) -> Result<Option<ProcessView>> {
        self.find_process(tenant, process)
    }

    fn shows_acknowledged(&self) -> bool {
        false
    }

    fn processes(
        &mut self,
        tenant: &TenantId,
        filter: &ProcessFilter,
        page: &Page,
    ) -> Result<Paged<ProcessView>> {
        self.list_processes(tenant, filter, page)
    }

    fn runs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        page: &Page,
    ) -> Result<Option<Paged<RunRow>>> {
        self.list_runs(tenant, process, page)
    }

    fn event(&mut self, tenant: &TenantId, id: &EventId) -> Result<Option<StoredEvent>> {
        self.find_event(tenant, id)
    }

    fn events(
        &mut self,
        tenant: &TenantId,
        filter: &EventFilter,
        page: &Page,
    ) -> Result<Paged<StoredEvent>> {
        self.list_events(tenant, filter, page)
    }

    fn stream(&mut self, tenant: &TenantId, stream: &StreamKey) -> Result<Option<StreamState>> {
        self.read_stream(tenant, stream)
    }

    fn stream_events(
        &mut self,
        tenant: &TenantId,
        stream: &StreamKey,
        after: u64,
        limit: usize,
    ) -> Result<Option<Vec<StoredEvent>>> {
        self.follow_stream(tenant, stream, after, limit)
    }

    fn logs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        filter: &LogFilter,
        page: &Page,
    ) -> Result<Option<Paged<StoredLog>>> {
        const CALL: &str = "read logs";
        let after = logs::place(page)?;
        let found = self.ask(CALL, tenant, |connection| {
            logs::page(connection, tenant, process, filter, after, page.limit)
        })?;
        if !found.rows.is_empty() || self.find_process(tenant, process)?.is_some() {
            return Ok(Some(found));
        }
        let newest = self.ask(CALL, tenant, |connection| {
            logs::newest(connection, tenant.as_str(), process.as_str())
        })?;
        Ok(newest.map(|_| found))
    }

    fn log_cursor(&self, row: &StoredLog) -> Cursor {
        logs::cursor_of(row)
    }

    fn newest_log_id(&mut self) -> Result<i64> {
        let now = self.health.now();
        let settled = self.health.settled();
        self.session.ask("newest log", |connection| {
            logs::newest_id(connection, settled.until(connection, now)?, now)
        })
    }

    fn highest_log_id(&mut self) -> Result<i64> {
        let now = self.health.now();
        self.session.ask("highest log", |connection| logs::highest_id(connection, now))
    }

    fn new_logs(
        &mut self,
        tenant: &TenantId,
        process: &ProcessId,
        filter: &LogFilter,
        limit: usize,
    ) -> Result<Received> {
        let (health, now) = (Arc::clone(&self.health), self.health.now());
        self.ask("read new logs", tenant, |connection| {
            let settled = health.settled().until(connection, now)?;
            logs::new(connection, tenant, process, filter, limit, (settled, now))
        })
    }

    fn dead_letters(
        &mut self,
        tenant: &TenantId,
        filter: &DeadLetterFilter,
        page: &Page,
    ) -> Result<Paged<DeadLetter>> {
        self.list_dead_letters(tenant, filter, page)
    }

    fn dead_letter(&mut self, tenant: &TenantId, id: i64) -> Result<Option<DeadLetter>> {
        self.find_dead_letter(tenant, id)
    }

    fn ping(&mut self) -> Result<()> {
        let health = Arc::clone(&self.health);
        self.session.ask("ping", move |connection| facts::compare_clocks(connection, &health))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sql::{self, statement, text};

    #[test]
    fn the_statements_of_listings_have_the_parts_that_are_asked_for() {
        let ask = text(statement!("list_processes"), &["status", "after"]);
        let ask = sql::repeated(&ask, "(:status)", 2);
        assert!(ask.contains("IN ((:status_1), (:status_2))"), "{ask}");
        assert!(ask.contains(":before_id") && !ask.contains(":process_type"));
        let ask = text(statement!("list_events"), &["from", "after"]);
        assert!(ask.contains(":from_at") && !ask.contains(":to_at") && !ask.contains(":source"));
        for file in [
            statement!("read_process"),
            statement!("list_processes"),
            statement!("list_runs"),
            statement!("read_event"),
            statement!("list_events"),
            statement!("stream_events"),
            statement!("stream_tombstones"),
            statement!("stream_begins"),
            statement!("read_stream"),
            statement!("read_dead_letter"),
            statement!("list_dead_letters"),
            statement!("logs_page"),
            statement!("logs_newest"),
            statement!("logs_new"),
        ] {
            assert!(text(file, &[]).contains("tenant_id = :tenant_id"), "law 7: {file}");
        }
    }
}
