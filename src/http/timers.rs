//! When to look at which connection. This module is made for deadlines that nearly always move further away: such a
//! move costs nothing, and ten thousand idle connections cost nothing per turn.
//!
//! An entry is a reminder, not the deadline itself: when it comes due the connection is asked again. A connection has
//! one entry that counts; one that an earlier entry has overtaken is told by its time and dropped when it comes due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// A reminder to look at the connection in `slot`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reminder {
    pub(super) at: Instant,
    pub(super) slot: usize,
    /// Tells a connection from another that had the slot before.
    pub(super) serial: u64,
}

/// All reminders of a loop, the next one first.
#[derive(Default)]
pub(super) struct Timers(BinaryHeap<Reverse<Reminder>>);

impl Timers {
    /// Makes sure of a reminder at `deadline` or earlier. `reminded_at` is the connection's entry that counts.
    pub(super) fn keep(
        &mut self,
        deadline: Option<Instant>,
        reminded_at: &mut Option<Instant>,
        slot: usize,
        serial: u64,
    ) {
        let Some(at) = deadline else { return };
        if reminded_at.is_none_or(|earlier| at < earlier) {
            *reminded_at = Some(at);
            self.0.push(Reverse(Reminder { at, slot, serial }));
        }
    }

    /// When the next reminder comes due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse(reminder)| reminder.at)
    }

    /// Takes one reminder that has come due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Reminder> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(reminder)| reminder)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deadline_that_moves_away_costs_no_entry_and_one_that_comes_near_is_kept() {
        let start = Instant::now();
        let after = |s: u64| start + Duration::from_secs(s);
        let (mut timers, mut reminded_at) = (Timers::default(), None);
        for s in 75..200 {
            timers.keep(Some(after(s)), &mut reminded_at, 3, 1);
        }
        assert_eq!(timers.0.len(), 1);
        timers.keep(Some(after(10)), &mut reminded_at, 3, 1);
        assert_eq!((timers.next(), reminded_at), (Some(after(10)), Some(after(10))));
        assert_eq!(timers.due(after(9)), None);
        assert_eq!(timers.due(after(10)), Some(Reminder { at: after(10), slot: 3, serial: 1 }));
        assert_eq!(timers.due(after(10)), None);
    }
}
