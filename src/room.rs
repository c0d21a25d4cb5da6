//! Bounds a channel by what its messages hold, not by how many there are. This module counts the room that is taken.
//!
//! A batch of 10,000 events is one message, so a channel bounded in messages would bound nothing. Whoever posts
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
    /// Room for `capacity` entries.
    pub fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), capacity })
    }

    /// Takes room for `size` entries, or says why not.
    ///
    /// # Errors
    /// [`NoRoom::Ever`] when `size` is more than the whole capacity, else [`NoRoom::Now`].
    pub fn take(self: &Arc<Self>, size: usize) -> Result<Room, NoRoom> {
        if size > self.capacity {
            return Err(NoRoom::Ever);
        }
        let before = self.taken.fetch_add(size, Ordering::Relaxed);
        if before + size > self.capacity {
            self.taken.fetch_sub(size, Ordering::Relaxed);
            return Err(NoRoom::Now);
        }
        Ok(Room { rooms: Arc::clone(self), size })
    }

    /// How many entries wait now.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn capacity(&self) -> usize {
        self.capacity
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
}
