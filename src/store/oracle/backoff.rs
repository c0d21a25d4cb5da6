//! Pauses between attempts at a connection. This module makes each longer than the one before, and spreads them.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::errors::Class;

/// Pauses between attempts: each twice as long as the one before, spread so that many do not come at once.
#[derive(Debug)]
pub(super) struct Backoff {
    pub(super) failures: u32,
    pub(super) not_before: Option<Instant>,
    seed: u64,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { failures: 0, not_before: None, seed: RandomState::new().hash_one(()) | 1 }
    }

    /// A number below `limit`, another one at each call.
    pub(super) fn spread(&mut self, limit: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % limit.max(1)
    }

    /// The pause after one more failure of this class: between half and all of what doubling gives.
    pub(super) fn pause(&mut self, class: Class) -> Duration {
        let (first, longest) = class.pauses();
        let whole = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        let millis = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
        let shortest = u64::try_from(first.as_millis()).unwrap_or(0).max(millis / 2);
        Duration::from_millis(shortest + self.spread(millis - shortest + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_spread_and_start_long_after_a_refused_password() {
        let mut backoff = Backoff::new();
        let soon: Vec<Duration> = (0..12).map(|_| backoff.pause(Class::CannotConnect)).collect();
        assert!(soon[0] <= Duration::from_millis(100));
        assert!(soon.iter().all(|pause| *pause <= Duration::from_secs(5)));
        assert!(soon[11] >= Duration::from_millis(2500));
        let mut refused = Backoff::new();
        for _ in 0..5 {
            let pause = refused.pause(Class::Authentication);
            assert!(pause >= Duration::from_secs(60) && pause <= Duration::from_secs(600));
        }
        let mut spread = Backoff::new();
        spread.failures = 10;
        let pauses: Vec<Duration> = (0..9).map(|_| spread.pause(Class::CannotConnect)).collect();
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
    }
}
