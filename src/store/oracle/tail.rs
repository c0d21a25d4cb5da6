//! Looks for what any instance has committed, for those of this one who wait for it. This module is the tail session of
//! the Oracle store: one statement a look, however many follow.
//!
//! A transaction becomes visible some time after the moments that stand in its rows. So each look goes back a little
//! further than the one before it came, and events that were told already are known by their numbers. Now and then a
//! look goes back far, for a transaction that took long. Lines are shown to followers only when everything before them
//! is committed ([`super::settled`]), so each look takes those that have become so since the last one.
//!
//! What must stay true: nothing that a follower could be shown goes untold for longer than [`FAR_PAUSE`]. Told twice
//! costs a question; so wherever this module cannot know, it says that there may be news of anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::bind::{self, Bind};
use super::health::Health;
use super::session::Session;
use super::settled;
use super::sql::{statement, text};
use crate::domain::ids::{ProcessId, StreamKey, TenantId};
use crate::domain::time::Timestamp;
use crate::store::{Fresh, Result, TailSession};

/// How far before the last look a look begins: longer than a batch takes from its moment to its commit.
const OVERLAP: Duration = Duration::from_secs(2);
/// How far a far look goes back: longer than any call may take, and the rest of its transaction.
const FAR: Duration = Duration::from_secs(super::database::CALL_TIMEOUT.as_secs() * 3 / 2);
/// Between two far looks.
const FAR_PAUSE: Duration = Duration::from_secs(5);
/// Rows of one look. Where there are more, nobody looks at them one by one.
const ROWS_MAX: usize = 10_000;
/// Numbers remembered as told: those of a few busy looks. Beyond it all are forgotten, and told once more.
const TOLD_MAX: usize = 8 * ROWS_MAX;

/// How far was looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    looked_at: Timestamp,
    /// Lines up to here, by their receipt, were told.
    lines_until: Timestamp,
    looked_far_at: Timestamp,
}

/// From where one look goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    since: Timestamp,
    lines_after: Timestamp,
    lines_until: Timestamp,
    is_far: bool,
}

impl Place {
    fn begin(now: Timestamp) -> Self {
        let lines_until = now.minus(settled::MARGIN);
        Self { looked_at: now, lines_until, looked_far_at: now }
    }

    /// What a look at `now` has to cover, where everything that came in until `settled` is committed. A clock that was
    /// set back makes it longer, never shorter.
    fn span(&self, now: Timestamp, settled: Timestamp) -> Span {
        let is_far = now < self.looked_at || now.since(self.looked_far_at) >= FAR_PAUSE;
        let last = self.looked_at.min(now);
        let lines_after = self.lines_until.min(settled);
        Span {
            since: last.minus(if is_far { FAR } else { OVERLAP }),
            lines_after: if is_far { lines_after.minus(FAR) } else { lines_after },
            lines_until: settled,
            is_far,
        }
    }

    fn moved(self, now: Timestamp, span: Span) -> Self {
        let looked_far_at = if span.is_far { now } else { self.looked_far_at };
        Self { looked_at: now, lines_until: span.lines_until, looked_far_at }
    }
}

/// What one row says.
struct Found {
    kind: u8,
    tenant: String,
    name: String,
    id: i64,
    at: Timestamp,
}

/// The tail session.
pub(super) struct Tail {
    session: Session,
    health: Arc<Health>,
    /// None: nobody waits.
    place: Option<Place>,
    /// Events and dead letters that were told, by kind and number, with their moments.
    told: HashMap<(u8, i64), Timestamp>,
}

impl Tail {
    pub(super) fn new(session: Session, health: Arc<Health>) -> Self {
        Self { session, health, place: None, told: HashMap::new() }
    }

    /// What of `found` was not told yet. Lines have no numbers here, and are told as they are found.
    fn untold(&mut self, found: Vec<Found>, now: Timestamp) -> Fresh {
        let is_full = found.len() >= ROWS_MAX;
        let oldest = now.minus(FAR + FAR_PAUSE);
        self.told.retain(|_, at| *at >= oldest);
        if self.told.len() + found.len() > TOLD_MAX {
            self.told.clear();
        }
        let (mut streams, mut logs) = (Vec::new(), Vec::new());
        for row in found {
            let is_line = row.kind == b'L';
            if !is_line && self.told.insert((row.kind, row.id), row.at).is_some() {
                continue;
            }
            // A name that no door of ours lets through is nobody's to follow.
            let Ok(tenant) = TenantId::parse(&row.tenant) else { continue };
            if is_line {
                logs.extend(ProcessId::parse(&row.name).map(|process| (tenant, process)));
            } else {
                streams.extend(StreamKey::parse(&row.name).map(|stream| (tenant, stream)));
            }
        }
        if is_full {
            return Fresh::Anything;
        }
        streams.sort_unstable();
        streams.dedup();
        Fresh::Of { streams, logs }
    }
}

impl TailSession for Tail {
    fn look(&mut self) -> Result<Fresh> {
        let now = self.health.now();
        let Some(place) = self.place else {
            // From here on; what is visible by now they find when they look for themselves.
            self.place = Some(Place::begin(now));
            return Ok(Fresh::Anything);
        };
        let settled = self.health.settled();
        let ask = text(statement!("tail"), &[]);
        let (span, found) = self.session.ask("tail", |connection| {
            let span = place.span(now, settled.until(connection, now)?);
            let binds = [
                Bind::time(span.since),
                Bind::time(span.since),
                Bind::time(span.lines_after),
                Bind::time(span.lines_until),
                Bind::size(ROWS_MAX),
            ];
            let found = bind::query(connection, &ask, &binds, ROWS_MAX, |row| {
                Ok(Found {
                    kind: bind::text(row, "kind")?.bytes().next().unwrap_or_default(),
                    tenant: bind::text(row, "tenant_id")?,
                    name: bind::text(row, "name")?,
                    id: bind::integer(row, "id")?,
                    at: bind::time(row, "at_utc")?,
                })
            })?;
            Ok((span, found))
        })?;
        let fresh = self.untold(found, now);
        self.place = Some(place.moved(now, span));
        Ok(fresh)
    }

    fn rest(&mut self) {
        self.place = None;
        self.told = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000_000 + millis * 1000)
    }

    /// Where no transaction is open.
    fn settled(now: Timestamp) -> Timestamp {
        now.minus(settled::MARGIN)
    }

    #[test]
    fn a_transaction_that_is_open_holds_the_lines_back_until_it_ends() {
        let place = Place::begin(at(0));
        let held = place.span(at(250), at(-5_000));
        assert_eq!((held.lines_after, held.lines_until), (at(-5_000), at(-5_000)));
        let place = place.moved(at(250), held);
        let free = place.span(at(500), settled(at(500)));
        assert_eq!((free.lines_after, free.lines_until), (at(-5_000), at(-2_500)));
    }

    #[test]
    fn spans_of_events_overlap_and_those_of_lines_touch() {
        let mut place = Place::begin(at(0));
        let mut lines = settled(at(0));
        for turn in 1..60 {
            let now = at(turn * 250);
            let span = place.span(now, settled(now));
            assert_eq!(span.lines_until, settled(now));
            if span.is_far {
                assert_eq!(turn % 20, 0, "each fifth second");
                assert_eq!(span.since, at((turn - 1) * 250).minus(FAR));
                assert!(span.lines_after < lines);
            } else {
                assert_eq!(span.since, at((turn - 1) * 250).minus(OVERLAP));
                assert_eq!(span.lines_after, lines);
            }
            lines = span.lines_until;
            place = place.moved(now, span);
        }
    }

    #[test]
    fn a_clock_that_was_set_back_and_a_long_pause_leave_nothing_out() {
        let place = Place::begin(at(0));
        let back = place.span(at(-60_000), settled(at(-60_000)));
        assert!(back.is_far && back.since == at(-60_000).minus(FAR));
        assert!(back.lines_after <= back.lines_until);
        let late = place.span(at(90_000), settled(at(90_000)));
        assert!(late.since <= at(0).minus(OVERLAP), "from the last good look on");
        assert!(late.lines_after <= settled(at(0)));
    }

    #[test]
    fn the_statement_has_its_parameters_in_the_order_of_the_binds() {
        let sql = text(statement!("tail"), &[]);
        let names = ["applied_since", "letters_since", "lines_after", "lines_until", "rows_max"];
        let places: Vec<usize> =
            names.iter().map(|name| sql.find(&format!(":{name}")).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(sql.matches(':').count(), names.len());
    }
}
