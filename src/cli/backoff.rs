//! How long a client rests after a failure. This module knows no service: it turns a count of failures into a rest that
//! grows to a bound and differs from client to client.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The first rest after a failure; each further one is twice as long.
pub(super) const REST_FIRST: Duration = Duration::from_millis(250);
/// The longest rest, so that a service that is back hears of us soon.
pub(super) const REST_MAX: Duration = Duration::from_secs(30);

/// The rest after so many failures in a row.
pub(super) fn rest_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (REST_FIRST * 2u32.saturating_pow(doublings)).min(REST_MAX)
}

/// Between half of `rest` and all of it, so that a thousand clients do not come back at the same moment.
pub(super) fn jittered(rest: Duration) -> Duration {
    let chance = u32::try_from(RandomState::new().build_hasher().finish() % 1000).unwrap_or(0);
    rest / 2 + rest / 2 * chance / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_a_bound_and_differ() {
        assert_eq!(rest_after(1), REST_FIRST);
        assert_eq!(rest_after(3), REST_FIRST * 4);
        assert_eq!(rest_after(u32::MAX), REST_MAX);
        let rest = jittered(REST_MAX);
        assert!(rest >= REST_MAX / 2 && rest <= REST_MAX, "{rest:?}");
    }
}
