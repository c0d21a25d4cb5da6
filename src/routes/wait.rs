//! Answers that wait for what is not there yet. This module waits for the next events of a stream, and for a status
//! that shows one of them. No worker waits with it: a wait looks, and rests until there is news or its time is up.
//!
//! A wait subscribes before its first look and takes the news before each, so nothing comes between the two. Whatever
//! it comes to, an answer, nothing or an error, is a whole reply with its own status.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bumpalo::Bump;

use super::problem::Problem;
use super::{json, not_found, store_problem};
use crate::domain::event::TraceContext;
use crate::domain::ids::{ProcessId, StreamKey, TenantId};
use crate::domain::time::Timestamp;
use crate::http::{Pause, Reply};
use crate::live::Subscription;
use crate::store::{ProcessView, Reader, Result, StoredEvent};
use crate::view;
use crate::view::json::Json;

/// What is waited for.
pub(super) enum Wanted {
    /// Events of the stream after number `after`, so many at most.
    Events { after: u64, limit: usize },
    /// The status of `process`, once it shows event `seen` of the stream. `known` is what it was when it was asked for.
    Status { process: ProcessId, seen: u64, known: Option<Vec<u8>> },
}

/// A wait for something of a stream.
pub struct Wait {
    pub(super) tenant: TenantId,
    pub(super) stream: StreamKey,
    pub(super) wanted: Wanted,
    pub(super) until: Instant,
    /// That is when the token of the asker is no longer good: nothing is read for it from then on.
    pub(super) is_cut: bool,
    pub(super) news: Arc<Subscription>,
    /// What was asked for, for a problem.
    pub(super) path: String,
    pub(super) trace: TraceContext,
}

impl Wait {
    /// The reply when there is one, or when the time is up. None: the wait goes on.
    pub(super) fn look<'a>(
        &self,
        reader: &mut dyn Reader,
        arena: &'a Bump,
        now: Timestamp,
        draining: bool,
    ) -> std::result::Result<Option<Reply<'a>>, Problem> {
        let is_over = Instant::now() >= self.until;
        let no_longer = draining || is_over;
        // Before the read: what comes later ends the rest at once.
        self.news.take();
        let failed = |error| store_problem(&error);
        match &self.wanted {
            Wanted::Events { after, limit } => {
                let events = if is_over && self.is_cut {
                    Vec::new()
                } else {
                    let found = reader.stream_events(&self.tenant, &self.stream, *after, *limit);
                    found.map_err(failed)?.unwrap_or_default()
                };
                let answered = no_longer || !events.is_empty();
                Ok(answered.then(|| json(arena, 200, |json| write_events(json, &events, *after))))
            }
            Wanted::Status { known, .. } if is_over && self.is_cut => match known {
                Some(known) => {
                    let body = Cow::Borrowed(&*arena.alloc_slice_copy(known));
                    Ok(Some(Reply { body, ..json(arena, 200, |_| {}) }))
                }
                None => Err(not_found()),
            },
            Wanted::Status { process, seen, .. } => {
                let shown = shows(reader, &self.tenant, &self.stream, *seen).map_err(failed)?;
                if !shown && !no_longer {
                    return Ok(None);
                }
                let found = reader.status(&self.tenant, process).map_err(failed)?;
                let view = found.ok_or_else(not_found)?;
                Ok(Some(json(arena, 200, |json| view::process::write(json, &view, now))))
            }
        }
    }

    pub(super) fn pause(&self) -> Pause {
        Pause { news: Arc::clone(&self.news), until: Some(self.until) }
    }
}

/// Whether so much of a stream is applied that a status shows its event `seen`.
pub(super) fn shows(
    reader: &mut dyn Reader,
    tenant: &TenantId,
    stream: &StreamKey,
    seen: u64,
) -> Result<bool> {
    Ok(seen == 0 || reader.stream(tenant, stream)?.is_some_and(|state| state.applied_seq >= seen))
}

/// A status, on its own.
pub(super) fn status_body(view: &ProcessView, now: Timestamp) -> Vec<u8> {
    let arena = Bump::new();
    let mut json = Json::new(&arena);
    view::process::write(&mut json, view, now);
    json.finish().to_vec()
}

/// Writes events of a stream, and the number to go on after: the same serves paging and resuming.
pub(super) fn write_events(json: &mut Json<'_>, events: &[StoredEvent], after: u64) {
    let next = events.last().map_or(after, |stored| stored.event.stream_seq);
    json.object(|json| {
        json.member("events")
            .array(|json| events.iter().for_each(|event| view::event::write(json, event)));
        json.member("after").number(next);
    });
}
