//! The threads for whatever may take long. This module takes complete requests from the loops, puts them before its
//! own app and sends the framed replies back; the loop that owns the socket writes them.
//!
//! A worker never touches a socket, so it can't be held up by a peer.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use crossbeam::channel::Sender;
use crossbeam::select;

use super::clerk::{Clerk, Late};
use super::connection::{Outcome, Parcel, with_request};
use super::letterbox::{self, Letterbox, Post};
use super::limits::SPARE_BYTES_MAX;
use super::reply::Facts;
use super::{App, Peer, Port, Unfinished, turns};
use crate::component::{Component, await_work, begin_step};
use crate::mailbox::Address;

/// Something for a worker to do, and where the result goes.
pub struct Job<A: App> {
    pub(super) work: Work<A>,
    pub(super) address: Address,
    pub(super) letterbox: Arc<Letterbox<Unfinished<A>>>,
}

/// What a worker does.
pub(super) enum Work<A: App> {
    /// Handle a request.
    Request { parcel: Parcel<A::Admitted>, facts: Facts, peer: Peer, port: Port },
    /// Go on with a reply: make the next piece of its body, or the whole of it.
    Onward { unfinished: Box<Unfinished<A>>, facts: Facts },
}

/// Starts worker `n`. It takes jobs until it is told to stop, and then what is still in the channel.
///
/// # Errors
/// When the system gives no thread.
pub fn start<A>(
    n: usize,
    app: A,
    jobs: turns::Receiver<Job<A>>,
    ended: Sender<String>,
) -> io::Result<Component>
where
    A: App + Send + 'static,
{
    Component::start(format!("work-{n}"), ended, move |stop| {
        let mut worker = Worker::new(app);
        loop {
            await_work();
            select! {
                recv(jobs.tickets()) -> ticket => match ticket {
                    Ok(()) => {
                        begin_step();
                        if let Some(job) = jobs.take() {
                            worker.pass(job);
                        }
                    }
                    Err(_no_loop_left) => {
                        // The loops stop first, and this is how a worker sees it. Nobody has told it to end yet.
                        let _ = stop.channel().recv();
                        break;
                    }
                },
                recv(stop.channel()) -> _ => break,
            }
        }
        // The connections of these are waiting, and no loop has ended without them unless its time was up.
        while let Some(job) = jobs.try_take() {
            begin_step();
            worker.pass(job);
        }
        Ok(())
    })
}

/// A worker's app and its output buffer.
struct Worker<A> {
    clerk: Clerk<A>,
    out: Vec<u8>,
}

impl<A: App> Worker<A>
where
    Unfinished<A>: 'static,
{
    fn new(app: A) -> Self {
        Self { clerk: Clerk::new(app, SystemTime::now()), out: Vec::new() }
    }

    /// Does one job.
    fn pass(&mut self, job: Job<A>) {
        let Job { work, address, letterbox } = job;
        let post = match work {
            Work::Request { parcel, facts, peer, port } => {
                let Parcel { bytes, head_bytes, admitted, room } = parcel;
                self.clerk.turn_to(SystemTime::now());
                let back = letterbox::Slip { letterbox: &letterbox, address };
                let (clerk, out) = (&mut self.clerk, &mut self.out);
                let outcome = with_request(&bytes, head_bytes, &peer, port, |request| {
                    clerk.handle(request, admitted, &back, facts, out)
                });
                let post = self.post_of(outcome, bytes, address);
                // Before the answer leaves, so that whoever has it finds the room.
                drop(room);
                post
            }
            Work::Onward { unfinished, facts } => match *unfinished {
                Unfinished::Body(stream) => {
                    let (piece, onward) = self.clerk.more(stream).unzip();
                    Some(Post::Piece { address, piece, onward: onward.unwrap_or_default() })
                }
                Unfinished::Reply(late) => {
                    self.clerk.turn_to(SystemTime::now());
                    let facts = Facts { keep: facts.keep && !letterbox.is_draining(), ..facts };
                    match self.clerk.late(late, facts, &mut self.out) {
                        Late::Replied { keep } => {
                            self.post_of(Outcome::Replied { keep }, Vec::new(), address)
                        }
                        Late::NotYet { stream, pause } => {
                            Some(Post::NotYet { address, stream, pause })
                        }
                    }
                }
            },
        };
        if let Some(post) = post {
            letterbox.post(post);
        }
        self.clerk.end_turn();
    }

    /// Packs what is in `out` into the buffer that the request came in, which the loop gets back that way.
    fn post_of(
        &mut self,
        outcome: Outcome<Unfinished<A>>,
        mut buffer: Vec<u8>,
        address: Address,
    ) -> Option<Post<Unfinished<A>>> {
        buffer.clear();
        if self.out.len() <= buffer.capacity() {
            buffer.extend_from_slice(&self.out);
        } else {
            std::mem::swap(&mut buffer, &mut self.out);
        }
        self.out.clear();
        if self.out.capacity() > SPARE_BYTES_MAX {
            self.out = Vec::new();
        }
        match outcome {
            Outcome::Replied { keep } => Some(Post::Reply { address, bytes: buffer, keep }),
            Outcome::Stream { stream, keep } => {
                Some(Post::Stream { address, head: buffer, stream, keep })
            }
            Outcome::Late { stream } => Some(Post::Late { address, stream }),
            Outcome::Waiting => None,
        }
    }
}
