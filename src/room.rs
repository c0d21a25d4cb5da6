//! Bounds what waits by what it holds, not by how many messages there are. This module counts the room that is taken.
//!
//! A batch of 10,000 events is one message, and one event may be a megabyte, so a channel bounded in messages would
//! bound nothing. Room is counted in entries or in bytes, each in [`Rooms`] of its own. Whoever hands something on
//! takes room first and sends it along; the room is given back when the message is dropped, done with.
//!
//! # Shares
//! Room that is taken for an [`Account`] is a part of its share, and no share may be larger than what is left free: the
//! bound of each moves with what all of them hold. So one tenant alone gets half of the room, two that take all they
//! can get a third each, and there is always something left for one who comes later. (A. K. Choudhury and E. L. Hahne,
//! "Dynamic queue length thresholds for shared-memory packet switches", IEEE/ACM Transactions on Networking 6(2), 1998,
//! with a factor of one.) A fixed half for each would be no bound against two that work together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::domain::ids::TenantId;

/// What an [`Account`] holds shares of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// Bodies on their way in, in bytes.
    Bodies,
    /// Of these, the small ones: who has large batches under way may still send signs of life.
    SmallBodies,
    /// Events on their way to their commit.
    Events,
    /// Log rows likewise.
    LogRows,
    /// What both of them hold, in bytes.
    Payloads,
    /// Answers that wait for news, once or as long as somebody follows.
    Waits,
}

impl Pool {
    /// Every pool, in the order of its number.
    pub const ALL: [Self; 6] =
        [Self::Bodies, Self::SmallBodies, Self::Events, Self::LogRows, Self::Payloads, Self::Waits];

    fn as_str(self) -> &'static str {
        match self {
            Self::Bodies => "bytes for bodies on their way in",
            Self::SmallBodies => "bytes for small bodies on their way in",
            Self::Events => "places for events that wait to be written",
            Self::LogRows => "places for log rows that wait to be written",
            Self::Payloads => "bytes for what waits to be written",
            Self::Waits => "places for waits and followers",
        }
    }
}

/// What one tenant holds of each pool, over all of its tokens and requests.
#[derive(Debug)]
pub struct Account {
    tenant: TenantId,
    /// No other account has had it since the start.
    number: u64,
    held: [AtomicUsize; Pool::ALL.len()],
}

impl Account {
    pub fn new(tenant: TenantId) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Self { tenant, number, held: Default::default() }
    }

    /// A number of its own, never 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Its share of `pool`.
    pub fn held(&self, pool: Pool) -> usize {
        self.of(pool).load(Ordering::Relaxed)
    }

    fn of(&self, pool: Pool) -> &AtomicUsize {
        &self.held[pool as usize]
    }
}

/// An account is its tenant's.
impl PartialEq for Account {
    fn eq(&self, other: &Self) -> bool {
        self.tenant == other.tenant
    }
}

impl Eq for Account {}

/// The accounts in use: one for each tenant. Asked when a token is verified, and not for each request.
#[derive(Debug, Default)]
pub struct Accounts(Mutex<HashMap<TenantId, Weak<Account>>>);

/// A tenant that has its share is named in the log at most so often, for each room.
const NAME_EVERY: Duration = Duration::from_secs(60);
/// Accounts that nobody uses any more are looked for each time so many more have come.
const ACCOUNTS_SWEPT: usize = 256;

impl Accounts {
    /// The account of `tenant`: the same one as long as anybody has it.
    pub fn of(&self, tenant: &TenantId) -> Arc<Account> {
        let mut accounts = self.0.lock();
        if let Some(account) = accounts.get(tenant).and_then(Weak::upgrade) {
            return account;
        }
        if accounts.len().is_multiple_of(ACCOUNTS_SWEPT) {
            accounts.retain(|_, account| account.strong_count() > 0);
        }
        let account = Arc::new(Account::new(tenant.clone()));
        accounts.insert(tenant.clone(), Arc::downgrade(&account));
        account
    }
}

/// Names in the log who has its share of something. That shows with each of its requests, so it is said now and then.
#[derive(Debug, Default)]
pub struct Naming(Mutex<Option<Instant>>);

impl Naming {
    /// Says that `tenant` holds `held` of so many `things`, unless something like that was said a short while ago.
    pub fn name(&self, tenant: &TenantId, held: usize, capacity: usize, things: &str) {
        let now = Instant::now();
        let mut named = self.0.lock();
        if named.is_none_or(|named| now.duration_since(named) >= NAME_EVERY) {
            *named = Some(now);
            log::warn!(
                "tenant {tenant} holds {held} of the {capacity} {things}, as much as is left to others: it is answered 503 until it holds less"
            );
        }
    }
}

/// How much may wait, and how much does.
#[derive(Debug)]
pub struct Rooms {
    taken: AtomicUsize,
    capacity: usize,
    /// How often an account had its share already.
    held_back: AtomicU64,
    naming: Naming,
}

/// Room that is taken. Dropping it gives it back.
#[derive(Debug)]
pub struct Room {
    rooms: Arc<Rooms>,
    size: usize,
    /// It grows only as long as no more than so much is taken in all.
    ceiling: usize,
    /// Whose share it is a part of.
    share: Option<(Arc<Account>, Pool)>,
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
    /// There is room for others, and this account has its share: 503.
    Share,
    /// There never will be: 413.
    Ever,
}

impl Rooms {
    /// Room for `capacity` entries, or bytes.
    pub fn new(capacity: usize) -> Arc<Self> {
        let (taken, held_back) = (AtomicUsize::new(0), AtomicU64::new(0));
        Arc::new(Self { taken, capacity, held_back, naming: Naming::default() })
    }

    /// Takes room for `size` that counts in nobody's share, or says why not.
    ///
    /// # Errors
    /// [`NoRoom::Ever`] when `size` is more than the whole capacity, else [`NoRoom::Now`].
    pub fn take(self: &Arc<Self>, size: usize) -> Result<Room, NoRoom> {
        self.take_below(size, self.capacity, None)
    }

    /// Takes room for `size` as a part of the share that `account` has of `pool`.
    ///
    /// # Errors
    /// [`NoRoom::Ever`] when `size` is more than the largest share, which is half of the capacity, else [`NoRoom::Now`]
    /// or [`NoRoom::Share`].
    pub fn take_for(
        self: &Arc<Self>,
        size: usize,
        account: &Arc<Account>,
        pool: Pool,
    ) -> Result<Room, NoRoom> {
        self.take_below(size, self.capacity, Some((account, pool)))
    }

    /// Takes room for `size` that leaves what is above `ceiling` to others: no more than that is taken in all then.
    ///
    /// # Errors
    /// As [`Self::take_for`] where it is for an account, else as [`Self::take`]; but what is more than `ceiling` alone
    /// finds no room now, for another may take it.
    pub fn take_below(
        self: &Arc<Self>,
        size: usize,
        ceiling: usize,
        share: Option<(&Arc<Account>, Pool)>,
    ) -> Result<Room, NoRoom> {
        let share = share.map(|(account, pool)| (Arc::clone(account), pool));
        let mut room = Room { rooms: Arc::clone(self), size: 0, ceiling, share };
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

    /// How often there was room, and not for who asked, because its account has its share.
    pub fn held_back(&self) -> u64 {
        self.held_back.load(Ordering::Relaxed)
    }

    /// Counts an account that has its share, and names it in the log now and then.
    fn hold_back(&self, account: &Account, pool: Pool) {
        self.held_back.fetch_add(1, Ordering::Relaxed);
        self.naming.name(&account.tenant, account.held(pool), self.capacity, pool.as_str());
    }

    /// The most that one account gets: as much as is left free then.
    pub fn share_max(&self) -> usize {
        self.capacity / 2
    }
}

impl Room {
    /// Takes more room, so that it is `size` in all; never less.
    ///
    /// # Errors
    /// As [`Rooms::take_below`]. What was taken before stays taken.
    pub fn grow_to(&mut self, size: usize) -> Result<(), NoRoom> {
        let most = match self.share {
            Some(_) => self.rooms.share_max(),
            None => self.rooms.capacity,
        };
        if size > most {
            return Err(NoRoom::Ever);
        }
        let more = size.saturating_sub(self.size);
        if more == 0 {
            return Ok(());
        }
        let taken = self.rooms.taken.fetch_add(more, Ordering::Relaxed) + more;
        let held = self.share.as_ref().map_or(0, |(account, pool)| {
            account.of(*pool).fetch_add(more, Ordering::Relaxed) + more
        });
        self.size += more;
        if taken + held <= self.ceiling {
            return Ok(());
        }
        self.give_back(more);
        match &self.share {
            Some((account, pool)) if taken <= self.ceiling => {
                self.rooms.hold_back(account, *pool);
                Err(NoRoom::Share)
            }
            _ => Err(NoRoom::Now),
        }
    }

    fn give_back(&mut self, size: usize) {
        self.rooms.taken.fetch_sub(size, Ordering::Relaxed);
        if let Some((account, pool)) = &self.share {
            account.of(*pool).fetch_sub(size, Ordering::Relaxed);
        }
        self.size -= size;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_back(self.size);
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
        assert_eq!(rooms.take_below(6, 5, None).unwrap_err(), NoRoom::Now);
        let stranger = rooms.take_below(5, 5, None).unwrap();
        assert_eq!(rooms.take_below(1, 5, None).unwrap_err(), NoRoom::Now);
        let known = rooms.take(5).unwrap();
        drop((stranger, known));
        assert_eq!(rooms.taken(), 0);
    }

    fn account(tenant: &str) -> Arc<Account> {
        Arc::new(Account::new(TenantId::parse(tenant).unwrap()))
    }

    #[test]
    fn nobody_holds_more_than_what_is_left_free() {
        let rooms = Rooms::new(12);
        let [a, b, c] = ["a", "b", "c"].map(account);
        let take = |size, account: &Arc<Account>| rooms.take_for(size, account, Pool::Bodies);
        assert_eq!(take(7, &a).unwrap_err(), NoRoom::Ever, "it could hold half at most");
        let first = take(4, &a).unwrap();
        let second = take(2, &a).unwrap();
        assert_eq!(take(1, &a).unwrap_err(), NoRoom::Share, "half is what is left");
        let third = take(3, &b).unwrap();
        assert_eq!(take(1, &b).unwrap_err(), NoRoom::Share);
        let fourth = take(1, &c).unwrap();
        assert_eq!(take(3, &c).unwrap_err(), NoRoom::Now, "there are two left for anybody");
        assert_eq!(rooms.held_back(), 2, "where others would have found room");
        assert_eq!(rooms.taken(), 10, "what was refused is not taken");
        assert_eq!([&a, &b, &c].map(|account| account.held(Pool::Bodies)), [6, 3, 1]);
        assert_eq!(a.held(Pool::Payloads), 0, "each pool has shares of its own");
        drop((first, third, fourth));
        let all_it_may = take(4, &a).unwrap();
        drop((second, all_it_may));
        assert_eq!(
            ([&a, &b, &c].map(|account| account.held(Pool::Bodies)), rooms.taken()),
            ([0; 3], 0)
        );
    }

    #[test]
    fn room_of_a_share_grows_as_far_as_the_share_may() {
        let rooms = Rooms::new(12);
        let (a, b) = (account("a"), account("b"));
        let mut one = rooms.take_for(0, &a, Pool::Bodies).unwrap();
        one.grow_to(5).unwrap();
        let other = rooms.take_for(3, &b, Pool::Bodies).unwrap();
        assert_eq!(one.grow_to(6), Err(NoRoom::Share));
        one.grow_to(5).unwrap();
        assert_eq!((a.held(Pool::Bodies), rooms.taken()), (5, 8), "it keeps what it had");
        drop(other);
        one.grow_to(6).unwrap();
        assert_eq!(one.grow_to(7), Err(NoRoom::Ever));
    }

    #[test]
    fn a_tenant_has_one_account_as_long_as_anybody_has_it() {
        let accounts = Accounts::default();
        let tenant = |n: usize| TenantId::parse(&format!("t{n}")).unwrap();
        let first = accounts.of(&tenant(0));
        let rooms = Rooms::new(10);
        let room = rooms.take_for(2, &first, Pool::Events).unwrap();
        assert!(Arc::ptr_eq(&first, &accounts.of(&tenant(0))));
        drop(first);
        assert_eq!(accounts.of(&tenant(0)).held(Pool::Events), 2, "its room keeps it");
        for n in 1..3 * ACCOUNTS_SWEPT {
            drop(accounts.of(&tenant(n)));
        }
        assert!(accounts.0.lock().len() <= ACCOUNTS_SWEPT + 1, "what nobody uses goes");
        assert_eq!(accounts.of(&tenant(0)).held(Pool::Events), 2);
        drop(room);
        assert_eq!(accounts.of(&tenant(0)).held(Pool::Events), 0);
    }
}
