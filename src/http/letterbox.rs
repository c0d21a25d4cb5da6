//! Where the answers for a loop's connections arrive. This module holds the sleep protocol: a loop that runs is never
//! woken, a loop that sleeps is woken once, and no answer is ever left lying.
//!
//! The loop says that it is about to sleep, looks once more, and only then blocks; whoever posts puts first and then
//! looks whether the loop sleeps. One of the two sees the other, because both orders are sequentially consistent.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::SegQueue;
use mio::Waker;

use super::connection::Piece;
use super::{Onward, Pause, ReturnAddress};
use crate::mailbox::{Address, Letter, Mailbox, ReplyTo};

/// What comes back to a loop.
pub(super) enum Post<S> {
    /// The answer of a thread that knows nothing of HTTP.
    Letter(Letter),
    /// A framed reply. `keep`: the connection may be used again.
    Reply { address: Address, bytes: Vec<u8>, keep: bool },
    /// The framed head of a streamed reply.
    Stream { address: Address, head: Vec<u8>, stream: Box<S>, keep: bool },
    /// A piece of a streamed body; none if it broke off.
    Piece { address: Address, piece: Option<Piece<S>>, onward: Onward },
    /// A reply that comes whole, later.
    Late { address: Address, stream: Box<S> },
    /// It is not there yet.
    NotYet { address: Address, stream: Box<S>, pause: Pause },
    /// What a resting stream or a late reply waits for may be there.
    News { address: Address },
}

impl<S> Post<S> {
    pub(super) fn address(&self) -> Address {
        match self {
            Self::Letter(letter) => letter.address,
            Self::Reply { address, .. }
            | Self::Stream { address, .. }
            | Self::Piece { address, .. }
            | Self::Late { address, .. }
            | Self::NotYet { address, .. }
            | Self::News { address } => *address,
        }
    }
}

/// A loop's mailbox. Holds one post at most for each connection that is busy, and one for each rest of a stream, so it
/// needs no bound of its own.
pub(super) struct Letterbox<S> {
    posts: SegQueue<Post<S>>,
    waker: Arc<Waker>,
    awake: AtomicBool,
    draining: AtomicBool,
}

impl<S> Letterbox<S> {
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let (awake, draining) = (AtomicBool::new(true), AtomicBool::new(false));
        Self { posts: SegQueue::new(), waker, awake, draining }
    }

    /// Leaves a post and wakes the loop, if it sleeps.
    pub(super) fn post(&self, post: Post<S>) {
        self.posts.push(post);
        self.wake_owner();
    }

    /// Says that the loop is about to sleep. Returns whether it may: nothing has been posted.
    pub(super) fn fall_asleep(&self) -> bool {
        self.awake.store(false, Ordering::SeqCst);
        self.posts.is_empty()
    }

    /// Says that the loop runs and will look by itself.
    pub(super) fn wake_up(&self) {
        self.awake.store(true, Ordering::SeqCst);
    }

    /// Moves up to `count` posts to `posts`.
    pub(super) fn take(&self, count: usize, posts: &mut Vec<Post<S>>) {
        posts.extend(std::iter::from_fn(|| self.posts.pop()).take(count));
    }

    /// Says that every reply from now on is the last one of its connection.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    fn wake_owner(&self) {
        if !self.awake.swap(true, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            // The loop looks around by itself before long.
            log::warn!("a poll loop could not be woken: {error}");
        }
    }
}

impl<S: Send> Mailbox for Letterbox<S> {
    fn put(&self, letter: Letter) {
        self.posts.push(Post::Letter(letter));
    }

    fn ring(&self, address: Address) {
        self.posts.push(Post::News { address });
    }

    fn wake(&self) {
        self.wake_owner();
    }
}

/// The return address of one exchange.
pub(super) struct Slip<'l, S> {
    pub(super) letterbox: &'l Arc<Letterbox<S>>,
    pub(super) address: Address,
}

impl<S: Send + 'static> ReturnAddress for Slip<'_, S> {
    fn reply_to(&self, context: Box<dyn Any + Send>) -> ReplyTo {
        let letterbox = Arc::clone(self.letterbox);
        ReplyTo { mailbox: letterbox, address: self.address, context }
    }
}
