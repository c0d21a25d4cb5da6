//! The memory in which a thread builds its replies. This module lends one arena per thread, measures what each request
//! took of it and empties it after each reply, so that a reply costs no allocation and leaves nothing behind.

use bumpalo::Bump;

use super::limits::{ARENA_BYTES, ARENA_BYTES_MAX};

/// A thread's arena.
pub(super) struct Arena(Bump);

impl Arena {
    pub(super) fn new() -> Self {
        Self(Bump::with_capacity(ARENA_BYTES))
    }

    pub(super) fn bump(&self) -> &Bump {
        &self.0
    }

    /// Bytes taken since the last [`Self::clear`], to the size of the last allocation's padding.
    pub(super) fn used(&self) -> usize {
        self.0.allocated_bytes().saturating_sub(self.0.chunk_capacity())
    }

    /// Frees everything that was built here.
    pub(super) fn clear(&mut self) {
        if self.0.allocated_bytes() > ARENA_BYTES_MAX {
            *self = Self::new();
        } else {
            self.0.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_measured_and_a_large_one_leaves_no_memory_behind() {
        let mut arena = Arena::new();
        assert_eq!(arena.used(), 0);
        arena.bump().alloc_slice_fill_copy(1000, 0_u8);
        assert!((1000..1100).contains(&arena.used()));
        arena.clear();
        assert_eq!(arena.used(), 0);
        arena.bump().alloc_slice_fill_copy(ARENA_BYTES_MAX + 1, 0_u8);
        arena.clear();
        assert!(arena.bump().allocated_bytes() <= 2 * ARENA_BYTES);
    }
}
