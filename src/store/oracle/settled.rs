//! Up to when everything that came in is committed. This module asks the database how long the oldest open transaction
//! with lines lasts, so that followers are shown no line beyond which another may still appear.
//!
//! A line has its moment, then its number, and becomes visible last, when its transaction ends. Whoever goes on behind a
//! number never looks before it again, so nothing may be shown beyond what a transaction still holds back. The moment is
//! ours, and the transaction begins when the database hears of it: [`MARGIN`] is for what lies between the two, and for
//! what the clocks of the instances differ by.
//!
//! Once everything up to a moment is committed, that stays so: what is known is shared by all threads, and asked for
//! again after [`KNOWN_FOR`].

use std::time::Duration;

use oracle::Connection;
use parking_lot::Mutex;

use super::bind::{self, Bind};
use super::errors::{self, Class};
use super::facts::{BLIND_FOR, is_due};
use super::sql::{statement, text};
use crate::domain::time::Timestamp;

/// Followers are behind by as much, even where no transaction is open.
pub(super) const MARGIN: Duration = Duration::from_secs(3);
/// What is known is used again for so long: less than the pause between two looks for news.
const KNOWN_FOR: Duration = Duration::from_millis(200);

/// What all threads of an instance know of it.
#[derive(Default)]
pub(super) struct Settled(Mutex<Known>);

#[derive(Debug, Default, Clone, Copy)]
struct Known {
    until: Timestamp,
    asked_at: Option<Timestamp>,
    /// When the right to look was found missing.
    blind_at: Option<Timestamp>,
}

impl Settled {
    /// The moment up to which every line is committed, or never will be. `now` is the store's clock before the call.
    /// Without the right to look at transactions none is taken to last longer than [`MARGIN`].
    pub(super) fn until(
        &self,
        connection: &Connection,
        now: Timestamp,
    ) -> oracle::Result<Timestamp> {
        let known = *self.0.lock();
        if !is_due(known.asked_at, KNOWN_FOR, now) {
            return Ok(known.until);
        }
        let (open_for, blind_at) = if !is_due(known.blind_at, BLIND_FOR, now) {
            (Duration::ZERO, known.blind_at)
        } else {
            match open_writes(connection) {
                Ok(open_for) => (open_for, None),
                // An older schema, or the owner has no right to look.
                Err(error) if errors::class_of(&error) == Class::Missing => {
                    if known.blind_at.is_none() {
                        log::warn!(
                            "a follower may pass over log rows that take more than {} s to be written, see \
                             000_grants_as_dba.sql: {}",
                            MARGIN.as_secs(),
                            errors::clean(&error.to_string())
                        );
                    }
                    (Duration::ZERO, Some(now))
                }
                Err(error) => return Err(error),
            }
        };
        let mut known = self.0.lock();
        *known = Known { blind_at, ..known.told(now, open_for) };
        Ok(known.until)
    }
}

impl Known {
    /// What is known when at `now` the oldest transaction has been open for `open_for`.
    fn told(self, now: Timestamp, open_for: Duration) -> Self {
        let newest = now.minus(MARGIN);
        // A clock that was set back gives moments that are not settled yet.
        let until = self.until.max(newest.minus(open_for)).min(newest);
        Self { until, asked_at: Some(now), ..self }
    }
}

/// For how long the oldest open transaction that may hold lines has been open.
fn open_writes(connection: &Connection) -> oracle::Result<Duration> {
    let ask = text(statement!("open_writes"), &[]);
    let ages =
        bind::call_for_rows(connection, &ask, &[Bind::Cursor], |row| bind::integer(row, "AGE_S"))?;
    let age_s = ages.into_iter().max().unwrap_or(0);
    Ok(Duration::from_secs(u64::try_from(age_s).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000_000 + second * 1_000_000)
    }

    #[test]
    fn nothing_is_settled_beyond_an_open_transaction_and_what_is_settled_stays_so() {
        let known = Known::default().told(at(100), Duration::ZERO);
        assert_eq!(known.until, at(97));
        let held = known.told(at(110), Duration::from_secs(5));
        assert_eq!(held.until, at(102));
        // Ages are told in whole seconds, so one that began later may seem older.
        assert_eq!(held.told(at(111), Duration::from_secs(7)).until, at(102));
        assert_eq!(held.told(at(111), Duration::ZERO).until, at(108));
    }

    #[test]
    fn a_clock_that_was_set_back_settles_nothing_that_is_to_come() {
        let known = Known::default().told(at(100), Duration::ZERO);
        assert_eq!(known.told(at(50), Duration::ZERO).until, at(47));
    }
}
