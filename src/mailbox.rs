//! How a thread that has done its part answers whoever asked. This module is the return address of every hand-off.
//!
//! Whoever accepts a request hands it on together with a [`ReplyTo`] and goes on with other work. The thread that
//! finishes it puts a [`Letter`] into the asker's mailbox, a whole batch of letters with one wake-up.

use std::any::Any;
use std::sync::Arc;

use crate::domain::event::Verdict;

/// Which of the asker's exchanges is meant. The generation tells a reused slot from the one that asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub slot: u32,
    pub generation: u32,
}

/// What the finishing thread has to say.
#[derive(Debug)]
pub enum Answer {
    /// One verdict for each envelope of the posting, in its order.
    Verdicts(Vec<Verdict>),
    /// So many log rows are committed.
    Logged(usize),
    /// Nothing was written, and the text says why, for people: 503.
    Unavailable(&'static str),
    /// Likewise, but others find room: this tenant has its share of it.
    HeldBack(&'static str),
}

/// An answer on its way back.
pub struct Letter {
    pub address: Address,
    /// What the asker needs to go on, untouched by whoever answered.
    pub context: Box<dyn Any + Send>,
    pub answer: Answer,
}

/// Where answers arrive. Implemented by the poll loops, and by a channel for everybody else.
pub trait Mailbox: Send + Sync {
    /// Leaves a letter without waking the owner.
    fn put(&self, letter: Letter);
    /// Leaves word that what a resting stream waits for may be there. An owner without streams needs none.
    fn ring(&self, _address: Address) {}
    /// Wakes the owner, if it sleeps.
    fn wake(&self);
}

/// The return address that travels with a request.
pub struct ReplyTo {
    pub mailbox: Arc<dyn Mailbox>,
    pub address: Address,
    pub context: Box<dyn Any + Send>,
}

impl ReplyTo {
    /// Leaves the answer and returns the mailbox, for the caller to wake once for a whole batch.
    #[must_use = "wake the mailbox when the batch is done"]
    pub fn put(self, answer: Answer) -> Arc<dyn Mailbox> {
        self.mailbox.put(Letter { address: self.address, context: self.context, answer });
        self.mailbox
    }
}

/// Wakes every mailbox of a batch once.
pub fn wake_all(mut mailboxes: Vec<Arc<dyn Mailbox>>) {
    mailboxes.sort_by_key(|mailbox| Arc::as_ptr(mailbox).cast::<()>());
    mailboxes.dedup_by_key(|mailbox| Arc::as_ptr(mailbox).cast::<()>());
    for mailbox in mailboxes {
        mailbox.wake();
    }
}

/// A mailbox for a thread that waits for its answers: the reaper, the command line, tests.
pub struct ChannelMailbox(crossbeam::channel::Sender<Letter>);

impl ChannelMailbox {
    /// A mailbox and the end where its letters come out. Unbounded only in form: its owner posts and then waits.
    pub fn new() -> (Arc<Self>, crossbeam::channel::Receiver<Letter>) {
        let (sender, letters) = crossbeam::channel::unbounded();
        (Arc::new(Self(sender)), letters)
    }
}

impl Mailbox for ChannelMailbox {
    fn put(&self, letter: Letter) {
        // The asker may have given up and gone; then nobody wants the letter.
        let _ = self.0.send(letter);
    }

    fn wake(&self) {}
}
