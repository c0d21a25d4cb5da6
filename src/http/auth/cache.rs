//! Tokens that were verified a moment ago. This module spares the signature of a token that comes again, which is
//! the dearest part of a request. It keeps digests instead of tokens, successes only, and nothing for long.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::digest::{SHA256, digest};

use super::keys::seconds;
use super::principal::{LEEWAY_S, Principal};

/// So many tokens in all: more clients than that at once are rare, and the rest is only verified again.
pub(super) const ENTRIES_MAX: usize = 4096;
/// Threads rarely meet on one of so many locks.
const SHARDS: usize = 16;
const SHARD_ENTRIES_MAX: usize = ENTRIES_MAX / SHARDS;
/// A token is verified anew after this long, so that a key taken out of the set stops counting.
const KEEP_S: u64 = 60;

/// What stands for a token.
pub(super) type Digest = [u8; 32];

struct Entry {
    /// The key set that verified it.
    generation: u64,
    kept: Kept,
}

/// Who sent a token, and between which seconds that may be said without verifying it anew.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) principal: Arc<Principal>,
    pub(super) until: f64,
    pub(super) not_before: f64,
}

impl Kept {
    /// Whether it may be said at `now_s`. The clock may have been set back since the token was verified.
    pub(super) fn is_good_at(&self, now_s: u64) -> bool {
        let now = seconds(now_s);
        now < self.until && now + LEEWAY_S >= self.not_before
    }
}

/// Verified tokens by their digest.
pub(super) struct Cache {
    shards: [Mutex<HashMap<Digest, Entry>>; SHARDS],
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }

    /// What stands for `token`.
    pub(super) fn digest(token: &str) -> Digest {
        let mut key = [0; 32];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        key
    }

    /// The principal of a token that the key set `generation` has verified and that is good at `now_s`.
    pub(super) fn get(&self, key: &Digest, generation: u64, now_s: u64) -> Option<Kept> {
        let mut shard = self.shard(key).lock();
        let entry = shard.get(key)?;
        if entry.generation != generation || seconds(now_s) >= entry.kept.until {
            shard.remove(key);
            return None;
        }
        entry.kept.is_good_at(now_s).then(|| entry.kept.clone())
    }

    /// Keeps the principal of a token that the key set `generation` has just verified.
    pub(super) fn put(
        &self,
        key: Digest,
        principal: Arc<Principal>,
        generation: u64,
        times: Times,
        now_s: u64,
    ) {
        let until = times.expiry.min(seconds(now_s.saturating_add(KEEP_S)));
        let mut shard = self.shard(&key).lock();
        if shard.len() >= SHARD_ENTRIES_MAX && !shard.contains_key(&key) {
            make_room(&mut shard, seconds(now_s));
        }
        let kept = Kept { principal, until, not_before: times.not_before };
        shard.insert(key, Entry { generation, kept });
    }

    /// Forgets everything: the keys have changed.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, key: &Digest) -> &Mutex<HashMap<Digest, Entry>> {
        &self.shards[usize::from(key[0]) % SHARDS]
    }
}

/// Between which seconds a token is good.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) not_before: f64,
    pub(super) expiry: f64,
}

/// Drops what has expired, else the entry that would expire first. A scan of one small shard, and only after a
/// signature was verified, which costs more.
fn make_room(shard: &mut HashMap<Digest, Entry>, now: f64) {
    shard.retain(|_, entry| now < entry.kept.until);
    if shard.len() < SHARD_ENTRIES_MAX {
        return;
    }
    let first = shard.iter().min_by(|(_, a), (_, b)| a.kept.until.total_cmp(&b.kept.until));
    if let Some(key) = first.map(|(key, _)| *key) {
        shard.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::super::principal::Role;
    use super::*;

    const ALWAYS: Times = Times { not_before: 0.0, expiry: 1e12 };

    fn somebody() -> Arc<Principal> {
        Arc::new(Principal::for_tests("t", &[Role::Read]))
    }

    #[test]
    fn a_token_is_remembered_for_a_minute() {
        let cache = Cache::new();
        let key = Cache::digest("a");
        cache.put(key, somebody(), 1, ALWAYS, 1000);
        assert!(cache.get(&key, 1, 1059).is_some());
        assert!(cache.get(&Cache::digest("b"), 1, 1000).is_none());
        assert!(cache.get(&key, 1, 1060).is_none());
        assert_eq!(cache.len(), 0, "what has expired is gone");
    }

    #[test]
    fn a_token_is_not_remembered_beyond_its_own_time() {
        let cache = Cache::new();
        let key = Cache::digest("a");
        cache.put(key, somebody(), 1, Times { not_before: 980.0, expiry: 1010.0 }, 1000);
        assert!(cache.get(&key, 1, 1009).is_some());
        assert!(cache.get(&key, 1, 940).is_none(), "the clock was set back");
        assert!(cache.get(&key, 1, 1010).is_none());
    }

    #[test]
    fn other_keys_make_it_forget() {
        let cache = Cache::new();
        let key = Cache::digest("a");
        cache.put(key, somebody(), 1, ALWAYS, 1000);
        assert!(cache.get(&key, 2, 1000).is_none());
        cache.put(key, somebody(), 2, ALWAYS, 1000);
        cache.clear();
        assert_eq!(cache.len(), 0);
    }

    #[test]
    fn it_never_holds_more_than_its_bound_and_keeps_the_youngest() {
        let cache = Cache::new();
        for i in 0..u64::try_from(ENTRIES_MAX).unwrap() * 3 {
            cache.put(Cache::digest(&i.to_string()), somebody(), 1, ALWAYS, 1000 + i / 1000);
        }
        assert!(cache.len() <= ENTRIES_MAX);
        let last = u64::try_from(ENTRIES_MAX).unwrap() * 3 - 1;
        assert!(cache.get(&Cache::digest(&last.to_string()), 1, 1000 + last / 1000).is_some());
    }
}
