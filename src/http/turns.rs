//! What waits for a worker. This module lets those who wait take turns by lanes, one for each tenant: whoever has sent
//! a thousand requests waits for them, and whoever sends one waits for one of each other's.
//!
//! Each lane holds as much as is left to the others and no more, as everywhere ([`crate::room`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crossbeam::channel::{self, TrySendError};
use parking_lot::Mutex;

/// The way in.
pub struct Sender<J> {
    turns: Arc<Mutex<Turns<J>>>,
    tickets: channel::Sender<()>,
}

/// The way out. Whoever gets a ticket ([`Receiver::tickets`]) takes the job that it is for ([`Receiver::take`]).
pub struct Receiver<J> {
    turns: Arc<Mutex<Turns<J>>>,
    tickets: channel::Receiver<()>,
}

/// The lanes, and whose turn it is.
struct Turns<J> {
    lanes: HashMap<u64, VecDeque<J>>,
    /// Every lane that holds something, once.
    order: VecDeque<u64>,
    /// In all lanes.
    waiting: usize,
    capacity: usize,
}

/// Lanes of which one alone holds `lane_max` jobs, and all together no more than twice as many.
pub fn bounded<J>(lane_max: usize) -> (Sender<J>, Receiver<J>) {
    let capacity = lane_max * 2;
    let (lanes, order) = (HashMap::new(), VecDeque::new());
    let turns = Arc::new(Mutex::new(Turns { lanes, order, waiting: 0, capacity }));
    let (giver, tickets) = channel::bounded(capacity);
    (Sender { turns: Arc::clone(&turns), tickets: giver }, Receiver { turns, tickets })
}

impl<J> Sender<J> {
    /// Adds `job` to `lane`. Never blocks.
    ///
    /// # Errors
    /// Gives the job back when there is no room for it, or nobody left who would take it.
    pub fn try_send(&self, lane: u64, job: J) -> Result<(), TrySendError<J>> {
        let mut turns = self.turns.lock();
        let held = turns.lanes.get(&lane).map_or(0, VecDeque::len) + 1;
        if turns.waiting + 1 + held > turns.capacity {
            return Err(TrySendError::Full(job));
        }
        // Under the lock, so that whoever gets the ticket finds the job.
        match self.tickets.try_send(()) {
            Ok(()) => {}
            Err(TrySendError::Full(())) => return Err(TrySendError::Full(job)),
            Err(TrySendError::Disconnected(())) => return Err(TrySendError::Disconnected(job)),
        }
        turns.waiting += 1;
        turns.lanes.entry(lane).or_default().push_back(job);
        if held == 1 {
            turns.order.push_back(lane);
        }
        Ok(())
    }
}

impl<J> Receiver<J> {
    /// One for each job.
    pub fn tickets(&self) -> &channel::Receiver<()> {
        &self.tickets
    }

    /// The job whose turn it is, for whoever has a ticket. None: somebody has taken one without.
    pub fn take(&self) -> Option<J> {
        let mut turns = self.turns.lock();
        let lane = turns.order.pop_front()?;
        let jobs = turns.lanes.get_mut(&lane)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            turns.lanes.remove(&lane);
        } else {
            turns.order.push_back(lane);
        }
        turns.waiting -= 1;
        job
    }

    /// A ticket and its job, if there is one.
    pub fn try_take(&self) -> Option<J> {
        self.tickets.try_recv().ok()?;
        self.take()
    }
}

impl<J> Clone for Sender<J> {
    fn clone(&self) -> Self {
        Self { turns: Arc::clone(&self.turns), tickets: self.tickets.clone() }
    }
}

impl<J> Clone for Receiver<J> {
    fn clone(&self) -> Self {
        Self { turns: Arc::clone(&self.turns), tickets: self.tickets.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_take_turns_and_each_keeps_its_order() {
        let (sender, receiver) = bounded(10);
        for job in 0..5 {
            sender.try_send(1, ("one", job)).unwrap();
        }
        sender.try_send(2, ("two", 0)).unwrap();
        sender.try_send(3, ("three", 0)).unwrap();
        sender.try_send(2, ("two", 1)).unwrap();
        let order: Vec<_> = std::iter::from_fn(|| receiver.try_take()).collect();
        let expected = [
            ("one", 0),
            ("two", 0),
            ("three", 0),
            ("one", 1),
            ("two", 1),
            ("one", 2),
            ("one", 3),
            ("one", 4),
        ];
        assert_eq!(order, expected);
        assert!(receiver.turns.lock().lanes.is_empty(), "a lane goes with its last job");
    }

    #[test]
    fn a_lane_holds_no_more_than_is_left_to_others() {
        let (sender, receiver) = bounded(4);
        for job in 0..4 {
            sender.try_send(1, job).unwrap();
        }
        assert_eq!(sender.try_send(1, 9), Err(TrySendError::Full(9)));
        for job in 10..12 {
            sender.try_send(2, job).unwrap();
        }
        assert_eq!(sender.try_send(2, 9), Err(TrySendError::Full(9)));
        sender.try_send(3, 20).unwrap();
        assert_eq!(receiver.try_take(), Some(0));
        assert_eq!(sender.try_send(1, 9), Err(TrySendError::Full(9)), "three others wait by now");
        drop(receiver);
        assert_eq!(sender.try_send(4, 9), Err(TrySendError::Disconnected(9)), "nobody takes it");
    }
}
