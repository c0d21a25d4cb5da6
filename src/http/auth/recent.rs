//! The tokens that one thread saw last. This module spares the digest and the lock of a token that the same thread has
//! just had: it compares the whole field instead.
//!
//! What must stay true: an entry is good for as long as the shared cache's entry that it was copied from, for the same
//! key set and between the same seconds, and not longer. The comparison takes the same time wherever two fields
//! differ, so nobody learns a token by timing guesses at it; and fields stay in memory for as long as a connection's
//! buffer might keep them, never in a place that is written out.

use std::sync::Arc;

use super::cache::Kept;
use super::principal::Principal;

/// Callers with a token of their own that a thread serves at once without falling back on the shared cache.
const PLACES: usize = 64;
/// A longer field is not kept, which bounds a thread's part to 64 KiB. A longer one falls back on the shared cache.
const FIELD_BYTES_MAX: usize = 1024;

struct Entry {
    authorization: Box<str>,
    /// The key set that verified it.
    generation: u64,
    kept: Kept,
}

/// One thread's memory of tokens.
#[derive(Default)]
pub struct Recent {
    /// A token's place is told by its last letters, which belong to its signature and are as good as random.
    places: Vec<Option<Entry>>,
}

impl Recent {
    /// Who sent this field, if it was verified by the key set `generation` and is good at `now_s`.
    pub(super) fn get(
        &self,
        authorization: &str,
        generation: u64,
        now_s: u64,
    ) -> Option<Arc<Principal>> {
        let entry = self.places.get(place(authorization))?.as_ref()?;
        let good = entry.generation == generation && entry.kept.is_good_at(now_s);
        (good && is_same(entry.authorization.as_bytes(), authorization.as_bytes()))
            .then(|| Arc::clone(&entry.kept.principal))
    }

    /// Remembers what the shared cache holds for this field.
    pub(super) fn put(&mut self, authorization: &str, generation: u64, kept: Kept) {
        if authorization.len() > FIELD_BYTES_MAX {
            return;
        }
        self.places.resize_with(PLACES, || None);
        self.places[place(authorization)] =
            Some(Entry { authorization: authorization.into(), generation, kept });
    }
}

fn place(authorization: &str) -> usize {
    // Not the very last letter, which holds only a few bits of the signature.
    let letters = authorization.bytes().rev().skip(1).take(4);
    letters.fold(0, |sum: usize, letter| sum.wrapping_mul(31).wrapping_add(letter.into())) % PLACES
}

/// Whether two fields are the same, without stopping at the first difference.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::super::principal::Role;
    use super::*;

    fn kept() -> Kept {
        let principal = Arc::new(Principal::for_tests("t", &[Role::Read]));
        Kept { principal, until: 1060.0, not_before: 980.0 }
    }

    #[test]
    fn a_token_is_known_to_the_same_keys_and_in_its_time_only() {
        let mut recent = Recent::default();
        assert!(recent.get("Bearer a.b.cdef", 1, 1000).is_none());
        recent.put("Bearer a.b.cdef", 1, kept());
        assert!(recent.get("Bearer a.b.cdef", 1, 1059).is_some());
        assert!(recent.get("Bearer a.b.cdef", 1, 1060).is_none(), "its time is over");
        assert!(recent.get("Bearer a.b.cdef", 1, 940).is_none(), "the clock was set back");
        assert!(recent.get("Bearer a.b.cdef", 2, 1000).is_none(), "the keys are others");
        for other in ["Bearer b.b.cdef", "Bearer a.b.cdeg", "Bearer a.b.cde", ""] {
            assert!(recent.get(other, 1, 1000).is_none(), "{other}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recent = Recent::default();
        for number in 0..1000 {
            recent.put(&format!("Bearer {number}"), 1, kept());
        }
        assert_eq!(recent.places.len(), PLACES);
        let long = "x".repeat(FIELD_BYTES_MAX + 1);
        recent.put(&long, 1, kept());
        assert!(recent.get(&long, 1, 1000).is_none());
    }
}
