//! Bounds what waits by what it holds, not by how many messages there are. This module counts the room that is taken.
//!
//! A batch of 10,000 events is one message, and one event may be a megabyte, so a channel bounded in messages would
//! bound nothing. Room is counted in entries or in bytes, each in [`Rooms`] of its own. Whoever hands something on
//! takes room first and sends it along; the room is given back when the message is dropped, done with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much may wait, and how much does.
#[derive(Debug)]
pub struct Rooms {
    taken: AtomicUsize,
    capacity: usize,
}

/// Room that is taken. Dropping it gives it back.
#[derive(Debug)]
pub struct Room {
    rooms: Arc<Rooms>,
    size: usize,
    /// It grows only as long as no more than so much is taken in all.
    ceiling: usize,
}

/// The room of one posting: for its entries, and for the bytes that they hold.
#[derive(Debug)]
pub struct Load {
    pub entries: Room,
    pub bytes: Room,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// Later there may be: 503.
    Now,
    /// There never will be: 413.
    Ever,
}

impl Rooms {
    /// Room for `capacity` entries, or bytes.
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), capacity })
    }

    /// Takes room for `size`, or says why not.
    ///
    /// # Errors
    /// [`NoRoom::Ever`] when `size` is more than the whole capacity, else [`NoRoom::Now`].
    pub fn take(self: &Arc<Self>, size: usize) -> Result<Room, NoRoom> {
        self.take_below(size, self.capacity)
    }

    /// Takes room for `size` that leaves what is above `ceiling` to others: no more than that is taken in all then.
    ///
    /// # Errors
    /// As [`Self::take`]; what is more than `ceiling` alone finds no room now, for another may take it.
    pub fn take_below(self: &Arc<Self>, size: usize, ceiling: usize) -> Result<Room, NoRoom> {
        let mut room = Room { rooms: Arc::clone(self), size: 0, ceiling };
        room.grow_to(size)?;
        Ok(room)
    }

    /// How much is taken now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Room {
    /// Takes more room, so that it is `size` in all; never less.
    ///
    /// # Errors
    /// As [`Rooms::take_below`]. What was taken before stays taken.
    pub fn grow_to(&mut self, size: usize) -> Result<(), NoRoom> {
        if size > self.rooms.capacity {
            return Err(NoRoom::Ever);
        }
        let more = size.saturating_sub(self.size);
        let before = self.rooms.taken.fetch_add(more, Ordering::Relaxed);
        if more > 0 && before + more > self.ceiling {
            self.rooms.taken.fetch_sub(more, Ordering::Relaxed);
            return Err(NoRoom::Now);
        }
        self.size += more;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.rooms.taken.fetch_sub(self.size, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_comes_back() {
        let rooms = Rooms::new(10);
        let first = rooms.take(7).unwrap();
        assert_eq!(rooms.take(4).unwrap_err(), NoRoom::Now);
        assert_eq!(rooms.take(11).unwrap_err(), NoRoom::Ever);
        let second = rooms.take(3).unwrap();
        drop(first);
        assert_eq!(rooms.taken(), 3);
        drop(second);
        assert_eq!(rooms.take(10).unwrap().size, 10);
    }

    #[test]
    fn room_grows_as_far_as_there_is_some_and_is_given_back_whole() {
        let rooms = Rooms::new(10);
        let mut one = rooms.take(0).unwrap();
        one.grow_to(6).unwrap();
        one.grow_to(4).unwrap();
        assert_eq!(rooms.taken(), 6, "it never shrinks");
        let other = rooms.take(3).unwrap();
        assert_eq!(one.grow_to(8), Err(NoRoom::Now));
        assert_eq!(one.grow_to(11), Err(NoRoom::Ever));
        assert_eq!(rooms.taken(), 9, "what was refused is not taken");
        drop(other);
        one.grow_to(10).unwrap();
        assert!(rooms.take(0).is_ok(), "nothing finds room anywhere");
        drop(one);
        assert_eq!(rooms.taken(), 0);
    }

    #[test]
    fn below_a_ceiling_the_rest_is_left_to_others() {
        let rooms = Rooms::new(10);
        assert_eq!(rooms.take_below(6, 5).unwrap_err(), NoRoom::Now);
        let stranger = rooms.take_below(5, 5).unwrap();
        assert_eq!(rooms.take_below(1, 5).unwrap_err(), NoRoom::Now);
        let known = rooms.take(5).unwrap();
        drop((stranger, known));
        assert_eq!(rooms.taken(), 0);
    }
}
