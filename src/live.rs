//! Who waits for what is new. This module tells streams of answers that there is more to read, and never what it is:
//! they read it from the store, at their own pace, so a slow one holds nothing and holds up nobody.
//!
//! A stream subscribes before it reads, and rests when it has read everything. Whoever commits announces after the
//! commit. News that come between the last read and the rest are kept by the subscription, so none is missed.
//! Announcing takes no more than two short locks and one wake-up for a whole batch; it waits for nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use parking_lot::Mutex;

use crate::component::Stop;
use crate::domain::apply::Change;
use crate::domain::ids::{ProcessId, StreamKey, TenantId};
use crate::domain::log_row::LogRow;
use crate::domain::process::State;
use crate::domain::time::Timestamp;
use crate::mailbox::{Address, Mailbox, wake_all};
use crate::room::Room;
use crate::store::{Claim, ListenerSession, LogSession, Message, Result};

/// What there can be news of. It names its tenant, so nobody hears of another's (law 7).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The log rows of a process.
    Logs(TenantId, ProcessId),
    /// The applied events of a stream.
    Events(TenantId, StreamKey),
}

/// Everybody who waits.
#[derive(Default)]
pub struct Hub {
    subscribers: Mutex<HashMap<Subject, Vec<Arc<Slot>>>>,
    /// How many there are, so that announcing to nobody costs one look.
    count: AtomicUsize,
    /// Numbers the batches.
    serial: AtomicU64,
    writes: Mutex<Writes>,
}

/// Log batches between their first row and their announcement. Writers commit in one order and may announce in
/// another, so what one announces must not begin above what another has committed and not announced yet.
#[derive(Default)]
struct Writes {
    /// The highest `log_id` that has been announced.
    highest: i64,
    /// For each batch a number, and a `log_id` below all of its rows.
    under_way: Vec<(u64, i64)>,
}

/// What a subscriber has not looked at yet, and where it rests.
#[derive(Default)]
struct Slot(Mutex<Pending>);

#[derive(Default)]
struct Pending {
    news: Option<News>,
    resting: Option<(Arc<dyn Mailbox>, Address)>,
}

/// There is something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// Every new row has a number above this one; 0 where that is not known.
    pub above: i64,
}

/// A place among those who wait. Given back on drop.
pub struct Subscription {
    hub: Arc<Hub>,
    subject: Subject,
    slot: Arc<Slot>,
    /// The room it takes up. None: the subscriber bounds itself.
    _room: Option<Room>,
}

impl Hub {
    /// Subscribes to `subject`. What is committed from now on is announced.
    pub fn subscribe(self: &Arc<Self>, subject: Subject) -> Subscription {
        let slot = Arc::new(Slot::default());
        {
            let mut subscribers = self.subscribers.lock();
            subscribers.entry(subject.clone()).or_default().push(Arc::clone(&slot));
            self.count.fetch_add(1, Ordering::SeqCst);
        }
        // With the fence in `is_empty`: either the reader that follows sees a commit, or its announcer sees us.
        fence(Ordering::SeqCst);
        Subscription { hub: Arc::clone(self), subject, slot, _room: None }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Whether nobody waits for anything.
    pub fn is_empty(&self) -> bool {
        fence(Ordering::SeqCst);
        self.len() == 0
    }

    /// Says that there is news of these subjects. Called after the commit.
    pub fn announce(&self, subjects: impl IntoIterator<Item = Subject>, news: News) {
        let mut mailboxes = Vec::new();
        {
            let subscribers = self.subscribers.lock();
            for subject in subjects {
                for slot in subscribers.get(&subject).into_iter().flatten() {
                    let mut pending = slot.0.lock();
                    let above = pending.news.map_or(news.above, |news| news.above).min(news.above);
                    pending.news = Some(News { above });
                    if let Some((mailbox, address)) = pending.resting.take() {
                        mailbox.ring(address);
                        mailboxes.push(mailbox);
                    }
                }
            }
        }
        wake_all(mailboxes);
    }

    /// Says that there may be news of anything: whoever waits looks for itself.
    pub fn announce_all(&self) {
        let subjects: Vec<Subject> = self.subscribers.lock().keys().cloned().collect();
        self.announce(subjects, News { above: 0 });
    }

    fn begin_write(&self) -> u64 {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let mut writes = self.writes.lock();
        let floor = writes.highest;
        writes.under_way.push((serial, floor));
        serial
    }

    /// What lies below every row that is not announced yet, `above` being below those of the batch at hand.
    fn lowest_above(&self, serial: u64, above: i64) -> i64 {
        let writes = self.writes.lock();
        let others = writes.under_way.iter().filter(|(other, _)| *other != serial);
        others.fold(above, |lowest, (_, floor)| lowest.min(*floor))
    }

    fn end_write(&self, serial: u64, last: Option<i64>) {
        let mut writes = self.writes.lock();
        writes.under_way.retain(|(other, _)| *other != serial);
        writes.highest = writes.highest.max(last.unwrap_or(0));
    }

    /// The session of a log writer, which announces what it has committed.
    pub fn announcing_logs(self: &Arc<Self>, session: Box<dyn LogSession>) -> Box<dyn LogSession> {
        Box::new(Announcing { hub: Arc::clone(self), session })
    }

    /// The session of a listener, which announces what it has applied.
    pub fn announcing_events(
        self: &Arc<Self>,
        session: Box<dyn ListenerSession>,
    ) -> Box<dyn ListenerSession> {
        Box::new(Announcing { hub: Arc::clone(self), session })
    }
}

impl Subscription {
    /// The same subscription, which takes up `room`.
    #[must_use]
    pub fn holding(mut self, room: Room) -> Self {
        self._room = Some(room);
        self
    }

    /// What has been announced since the last time this was asked. To be asked before reading, never after.
    pub fn take(&self) -> Option<News> {
        self.slot.0.lock().news.take()
    }

    /// Rests at `address` until there is news. False: there is news already, so there is no rest.
    pub fn rest(&self, mailbox: Arc<dyn Mailbox>, address: Address) -> bool {
        let mut pending = self.slot.0.lock();
        if pending.news.is_some() {
            return false;
        }
        pending.resting = Some((mailbox, address));
        true
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut subscribers = self.hub.subscribers.lock();
        if let Some(of_subject) = subscribers.get_mut(&self.subject) {
            of_subject.retain(|slot| !Arc::ptr_eq(slot, &self.slot));
            if of_subject.is_empty() {
                subscribers.remove(&self.subject);
            }
        }
        self.hub.count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A session that says what it has done.
struct Announcing<S: ?Sized> {
    hub: Arc<Hub>,
    session: Box<S>,
}

impl LogSession for Announcing<dyn LogSession> {
    fn write(&mut self, rows: &[LogRow]) -> Result<()> {
        let serial = self.hub.begin_write();
        let written = self.session.write(rows);
        let above = self.session.written_above().unwrap_or(0);
        if written.is_ok() && !self.hub.is_empty() {
            let news = News { above: self.hub.lowest_above(serial, above) };
            let mut last = None;
            let subjects = rows.iter().filter_map(|row| {
                let named = (&row.tenant, &row.process);
                // Rows come in runs of one process.
                let is_repeat = last.replace(named) == Some(named);
                (!is_repeat).then(|| Subject::Logs(row.tenant.clone(), row.process.clone()))
            });
            self.hub.announce(subjects, news);
        }
        let last = above.saturating_add(i64::try_from(rows.len()).unwrap_or(i64::MAX));
        self.hub.end_write(serial, written.is_ok().then_some(last));
        written
    }

    fn written_above(&self) -> Option<i64> {
        self.session.written_above()
    }
}

impl ListenerSession for Announcing<dyn ListenerSession> {
    fn claim(&mut self, max: usize, wait: std::time::Duration, stop: &Stop) -> Result<Claim> {
        self.session.claim(max, wait, stop)
    }

    fn load(&mut self, processes: &[(TenantId, ProcessId)]) -> Result<Vec<Option<State>>> {
        self.session.load(processes)
    }

    fn settle(&mut self, claim: Claim, change: Change, now: Timestamp) -> Result<()> {
        // Noted before, because the claim is given away. Whoever subscribes meanwhile has not read yet, or rests with
        // what is applied by now: so they are noted even when nobody waits yet.
        let mut subjects: Vec<Subject> = claim
            .messages
            .iter()
            .filter_map(|message| match message {
                Message::Event(accepted) => {
                    let envelope = &accepted.envelope;
                    Some(Subject::Events(envelope.tenant.clone(), envelope.stream.clone()))
                }
                Message::Undecodable { .. } => None,
            })
            .collect();
        self.session.settle(claim, change, now)?;
        if !self.hub.is_empty() {
            subjects.dedup();
            self.hub.announce(subjects, News { above: 0 });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::log_row::Level;
    use crate::mailbox::Letter;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    fn subject(tenant_name: &str, process: &str) -> Subject {
        Subject::Logs(tenant(tenant_name), ProcessId::parse(process).unwrap())
    }

    fn row(process: &str) -> LogRow {
        let process = ProcessId::parse(process).unwrap();
        LogRow::plain(tenant("acme"), process, Level::Info, "hello", Timestamp::default())
    }

    /// Notes who is rung and how often it is woken.
    #[derive(Default)]
    struct Bells(Mutex<(Vec<u32>, usize)>);

    impl Mailbox for Bells {
        fn put(&self, _: Letter) {
            unreachable!("no letters here")
        }

        fn ring(&self, address: Address) {
            self.0.lock().0.push(address.slot);
        }

        fn wake(&self) {
            self.0.lock().1 += 1;
        }
    }

    fn at(slot: u32) -> Address {
        Address { slot, generation: 0 }
    }

    #[test]
    fn who_rests_is_rung_once_and_one_wake_up_does_for_all() {
        let (hub, bells) = (Arc::new(Hub::default()), Arc::new(Bells::default()));
        let waiting: Vec<Subscription> =
            ["p", "p", "q"].map(|process| hub.subscribe(subject("acme", process))).into();
        for (slot, subscription) in (0..).zip(&waiting) {
            assert!(subscription.rest(Arc::clone(&bells) as Arc<dyn Mailbox>, at(slot)));
        }
        hub.announce([subject("other", "p"), subject("acme", "r")], News { above: 1 });
        assert_eq!(*bells.0.lock(), (vec![], 0));
        hub.announce([subject("acme", "p")], News { above: 7 });
        hub.announce([subject("acme", "p")], News { above: 3 });
        assert_eq!(*bells.0.lock(), (vec![0, 1], 1));
        assert_eq!(waiting[0].take(), Some(News { above: 3 }), "the news of both");
        assert_eq!(waiting[0].take(), None);
        assert_eq!(waiting[2].take(), None);
        assert_eq!(hub.len(), 3);
        drop(waiting);
        assert!(hub.is_empty() && hub.subscribers.lock().is_empty());
    }

    #[test]
    fn news_between_the_last_read_and_the_rest_are_not_missed() {
        let (hub, bells) = (Arc::new(Hub::default()), Arc::new(Bells::default()));
        let subscription = hub.subscribe(subject("acme", "p"));
        hub.announce([subject("acme", "p")], News { above: 0 });
        assert!(!subscription.rest(Arc::clone(&bells) as Arc<dyn Mailbox>, at(0)));
        assert!(subscription.take().is_some());
        assert!(subscription.rest(bells, at(0)));
    }

    /// Gives `log_id`s as a store does. Between its commit and its return it does what it is told.
    struct Session {
        last_id: Arc<Mutex<i64>>,
        above: i64,
        meanwhile: Box<dyn FnMut() + Send>,
    }

    impl LogSession for Session {
        fn write(&mut self, rows: &[LogRow]) -> Result<()> {
            {
                let mut last_id = self.last_id.lock();
                self.above = *last_id;
                *last_id += i64::try_from(rows.len()).unwrap();
            }
            (self.meanwhile)();
            Ok(())
        }

        fn written_above(&self) -> Option<i64> {
            Some(self.above)
        }
    }

    #[test]
    fn an_announcement_never_passes_over_rows_that_are_committed_and_not_announced() {
        let hub = Arc::new(Hub::default());
        let last_id = Arc::new(Mutex::new(0));
        let session = |meanwhile: Box<dyn FnMut() + Send>| {
            let last_id = Arc::clone(&last_id);
            hub.announcing_logs(Box::new(Session { last_id, above: 0, meanwhile }))
        };
        let subscription = Arc::new(hub.subscribe(subject("acme", "p")));
        let mut plain = session(Box::new(|| {}));
        plain.write(&vec![row("q"); 90]).unwrap();
        assert_eq!(subscription.take(), None, "of another process");
        plain.write(&[row("p")]).unwrap();
        assert_eq!(subscription.take(), Some(News { above: 90 }));
        // Row 97 is announced when rows 92 to 96 are committed and not announced yet.
        let looked = Arc::new(Mutex::new(Vec::new()));
        let mut overtaking = session(Box::new(|| {}));
        let mut overtaken = {
            let (looked, subscription) = (Arc::clone(&looked), Arc::clone(&subscription));
            session(Box::new(move || {
                overtaking.write(&[row("p")]).unwrap();
                looked.lock().push(subscription.take());
            }))
        };
        overtaken.write(&vec![row("p"); 5]).unwrap();
        assert_eq!(*looked.lock(), [Some(News { above: 91 })]);
        assert_eq!(subscription.take(), Some(News { above: 91 }));
        plain.write(&[row("p")]).unwrap();
        assert_eq!(subscription.take(), Some(News { above: 97 }));
        assert!(hub.writes.lock().under_way.is_empty());
    }
}
