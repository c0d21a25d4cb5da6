//! Where a loop answers its connections. This module joins the clerk, the way to the workers and the return addresses
//! to one [`Responder`], for one connection at a time.

use std::sync::Arc;

use crossbeam::channel::TrySendError;

use super::clerk::Clerk;
use super::connection::{Outcome, Parcel, Responder, Verdict};
use super::letterbox::{self, Letterbox};
use super::limits::{READ_BYTES, SPARE_BUFFERS_MAX};
use super::parse::Refusal;
use super::reply::Facts;
use super::worker::{Job, Work};
use super::{App, Head, Peer, Port, Request, Unfinished, turns};
use crate::mailbox::Address;
use crate::room::{Account, Rooms};

/// What a loop needs to answer, whichever the connection.
pub(super) struct Office<A: App> {
    pub(super) clerk: Clerk<A>,
    pub(super) jobs: turns::Sender<Job<A>>,
    pub(super) letterbox: Arc<Letterbox<Unfinished<A>>>,
    /// Empty buffers for requests that must be kept.
    pub(super) spares: Vec<Vec<u8>>,
    /// The room for the bodies of all connections of all loops, in bytes.
    pub(super) bodies: Arc<Rooms>,
    /// Counts exchanges, so that an answer to an earlier one is known as such.
    pub(super) generation: u32,
}

impl<A: App> Office<A> {
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        let fits = (1..=READ_BYTES).contains(&buffer.capacity());
        if fits && self.spares.len() < SPARE_BUFFERS_MAX {
            buffer.clear();
            self.spares.push(buffer);
        }
    }

    /// Lets a worker go on with a reply, in the lane of whoever asked for it. Gives it back if no worker has room, or
    /// none is left.
    pub(super) fn go_on(
        &self,
        unfinished: Box<Unfinished<A>>,
        facts: Facts,
        address: Address,
        lane: u64,
    ) -> Result<(), TrySendError<Box<Unfinished<A>>>> {
        let letterbox = Arc::clone(&self.letterbox);
        let back = |job: Job<A>| match job.work {
            Work::Onward { unfinished, .. } => unfinished,
            Work::Request { .. } => unreachable!("something unfinished was sent"),
        };
        let job = Job { work: Work::Onward { unfinished, facts }, address, letterbox };
        self.jobs.try_send(lane, job).map_err(|error| match error {
            TrySendError::Full(job) => TrySendError::Full(back(job)),
            TrySendError::Disconnected(job) => TrySendError::Disconnected(back(job)),
        })
    }
}

/// The office, serving one connection.
pub(super) struct Desk<'d, A: App> {
    pub(super) office: &'d mut Office<A>,
    /// The generation of the connection's exchange at hand.
    pub(super) exchange: &'d mut u32,
    /// Among whose requests the connection's own wait for a worker.
    pub(super) lane: &'d mut u64,
    pub(super) slot: u32,
    pub(super) peer: &'d mut Peer,
    pub(super) port: Port,
}

impl<A: App> Desk<'_, A> {
    fn next_address(&mut self) -> Address {
        self.office.generation = self.office.generation.wrapping_add(1);
        *self.exchange = self.office.generation;
        Address { slot: self.slot, generation: self.office.generation }
    }
}

/// The lane of whoever was admitted. Strangers have one in common.
fn lane<A: App>(admitted: &A::Admitted) -> u64 {
    A::account(admitted).map_or(0, |account| account.number())
}

impl<A: App> Responder for Desk<'_, A>
where
    Unfinished<A>: 'static,
{
    type Admitted = A::Admitted;
    type Stream = Unfinished<A>;

    fn admit(&mut self, head: &Head<'_>, facts: Facts, out: &mut Vec<u8>) -> Verdict<A::Admitted> {
        self.office.clerk.admit(head, facts, out)
    }

    fn handle(
        &mut self,
        request: &Request<'_>,
        admitted: A::Admitted,
        facts: Facts,
        out: &mut Vec<u8>,
    ) -> Outcome<Unfinished<A>> {
        let address = self.next_address();
        *self.lane = lane::<A>(&admitted);
        let Office { clerk, letterbox, .. } = &mut *self.office;
        clerk.handle(request, admitted, &letterbox::Slip { letterbox, address }, facts, out)
    }

    fn dispatch(
        &mut self,
        parcel: Parcel<A::Admitted>,
        facts: Facts,
        out: &mut Vec<u8>,
    ) -> Outcome<Unfinished<A>> {
        let address = self.next_address();
        let (peer, port) = (self.peer.clone(), self.port);
        *self.lane = lane::<A>(&parcel.admitted);
        let work = Work::Request { parcel, facts, peer, port };
        let letterbox = Arc::clone(&self.office.letterbox);
        // Never a blocking send: everybody else on this loop would wait, too.
        match self.office.jobs.try_send(*self.lane, Job { work, address, letterbox }) {
            Ok(()) => Outcome::Waiting,
            Err(_full_or_gone) => {
                let detail = "all workers are busy";
                Outcome::Replied { keep: self.office.clerk.refuse(503, detail, facts, out) }
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal, facts: Facts, out: &mut Vec<u8>) -> bool {
        self.office.clerk.refuse(refusal.status, refusal.detail, facts, out)
    }

    fn bodies(&self) -> &Arc<Rooms> {
        &self.office.bodies
    }

    fn account<'a>(&'a self, admitted: &'a A::Admitted) -> Option<&'a Arc<Account>> {
        A::account(admitted)
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.office.spares.pop().unwrap_or_default()
    }

    fn recycle(&mut self, buffer: Vec<u8>) {
        self.office.recycle(buffer);
    }
}
