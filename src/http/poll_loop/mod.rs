//! A thread that owns sockets. This module moves bytes between them and their connections, and nothing it does blocks:
//! it sleeps only in the poll, and only when nothing else is to be done.
//!
//! # What must stay true
//!
//! * Sockets are polled by edges, so whoever stops reading before the socket is empty must come back by itself.
//! * The place of a busy connection is never freed, so an answer finds either its own connection or nobody.
//! * The read snapshot of the app ends before answers are handed out: whoever asks right after an acknowledgement sees
//!   what was acknowledged.

mod arrivals;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::TrySendError;
use mio::{Events, Poll, Token, Waker};
use slab::Slab;

use super::accept::{Acceptor, Ready, SpareDescriptor};
use super::clerk::Clerk;
use super::connection::{Closing, Connection, Moment, Outcome};
use super::desk::{Desk, Office};
use super::gate::{Gate, Pass};
use super::letterbox::{Letterbox, Post};
use super::limits::{
    EVENTS_PER_TURN, Limits, POSTS_PER_ROUND, READ_BYTES, READS_PER_TURN, RETRY_PAUSE, SLEEP_MAX,
};
use super::timers::{Reminder, Timers};
use super::transport::{Moved, Transport, Workbench};
use super::worker::Job;
use super::{App, Pause, Peer, Port, Unfinished, turns};
use crate::component::{Stop, await_work, begin_step};
use crate::mailbox::{Address, Mailbox};

/// The token of the waker.
pub(super) const WAKE: Token = Token(usize::MAX);

/// Above these tokens are listeners, below are connections.
const LISTENERS: usize = usize::MAX - 16;

/// The token of a seat's listener number `index`.
pub(super) fn listener_token(index: usize) -> Token {
    Token(LISTENERS + index)
}

/// What a loop is given to start with.
pub(super) struct Seat {
    pub(super) poll: Poll,
    pub(super) acceptors: Vec<Acceptor>,
    pub(super) waker: Arc<Waker>,
}

/// An accepted connection with its socket.
struct Guest<A: App> {
    transport: Transport,
    connection: Connection<A::Admitted, Unfinished<A>>,
    peer: Peer,
    port: Port,
    /// The socket may hold something to read.
    readable: bool,
    /// The socket may take something.
    writable: bool,
    /// Both sides of the socket have been closed before the place could be freed.
    shut: bool,
    exchange: u32,
    /// Among whose requests its own wait for a worker.
    lane: u64,
    serial: u64,
    reminded_at: Option<Instant>,
    _pass: Pass,
}

impl<A: App> Guest<A> {
    /// When to look at it at the latest.
    fn deadline(&self) -> Option<Instant> {
        self.connection.deadline().into_iter().chain(self.transport.deadline()).min()
    }
}

/// A loop.
pub(super) struct PollLoop<A: App> {
    poll: Poll,
    acceptors: Vec<Acceptor>,
    spare_descriptor: SpareDescriptor,
    gate: Arc<Gate>,
    limits: Arc<Limits>,
    office: Office<A>,
    /// Boxed, so that growth moves pointers and leaves no large holes behind.
    guests: Slab<Box<Guest<A>>>,
    timers: Timers,
    /// Takes what is read, for all connections.
    scratch: Box<[u8]>,
    /// Takes what TLS needs meanwhile.
    workbench: Workbench,
    /// Takes what is to be written, for the connection at hand.
    spare_out: Vec<u8>,
    /// Guests that stopped in the middle, for their neighbours' sake.
    again: Vec<usize>,
    /// Guests whose stream found no worker with room.
    starved: Vec<usize>,
    posts: Vec<Post<Unfinished<A>>>,
    serial: u64,
    drain_by: Option<Instant>,
}

impl<A: App> PollLoop<A>
where
    Unfinished<A>: 'static,
{
    pub(super) fn new(
        seat: Seat,
        app: A,
        jobs: turns::Sender<Job<A>>,
        limits: Arc<Limits>,
        gate: Arc<Gate>,
    ) -> Self {
        let office = Office {
            clerk: Clerk::new(app, SystemTime::now()),
            jobs,
            letterbox: Arc::new(Letterbox::new(seat.waker)),
            spares: Vec::new(),
            bodies: Arc::clone(gate.bodies()),
            generation: 0,
        };
        Self {
            poll: seat.poll,
            acceptors: seat.acceptors,
            spare_descriptor: SpareDescriptor::new(),
            workbench: Workbench::new(Arc::clone(gate.faults())),
            gate,
            limits,
            office,
            guests: Slab::new(),
            timers: Timers::default(),
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            spare_out: Vec::new(),
            again: Vec::new(),
            starved: Vec::new(),
            posts: Vec::new(),
            serial: 0,
            drain_by: None,
        }
    }

    /// Serves until it is time to stop and nobody waits for an answer any more.
    ///
    /// # Errors
    /// When the poll fails, which it does only when something is very wrong.
    pub(super) fn run(mut self, stop: &Stop) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            self.sleep(&mut events)?;
            let now = Instant::now();
            self.pass(&events, now);
            if self.drain_by.is_none() && stop.is_set() {
                self.begin_drain(now);
            }
            if let Some(drain_by) = self.drain_by
                && (self.guests.is_empty() || now >= drain_by)
            {
                if !self.guests.is_empty() {
                    log::warn!("{} connections are cut off by the stop", self.guests.len());
                }
                return Ok(());
            }
        }
    }

    /// Waits until something is to be done.
    fn sleep(&mut self, events: &mut Events) -> io::Result<()> {
        let longest = self.longest_sleep(Instant::now());
        let pause = if self.office.letterbox.fall_asleep() { longest } else { Duration::ZERO };
        await_work();
        let polled = self.poll.poll(events, Some(pause));
        begin_step();
        self.office.letterbox.wake_up();
        match polled {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn longest_sleep(&self, now: Instant) -> Duration {
        let ready = |when| self.acceptors.iter().any(|acceptor| acceptor.ready == when);
        if !self.again.is_empty() || ready(Ready::Now) {
            return Duration::ZERO;
        }
        let retry = (!self.starved.is_empty() || ready(Ready::Later)).then_some(RETRY_PAUSE);
        let until = |at: Instant| at.saturating_duration_since(now);
        let due = self.timers.next().map(until);
        let end = self.drain_by.map(until);
        [retry, due, end].into_iter().flatten().fold(SLEEP_MAX, Duration::min)
    }

    /// Does everything that is to be done at `now`.
    fn pass(&mut self, events: &Events, now: Instant) {
        self.office.clerk.turn_to(SystemTime::now());
        for event in events {
            match event.token() {
                WAKE => {}
                Token(token) if token >= LISTENERS => {
                    if let Some(acceptor) = self.acceptors.get_mut(token - LISTENERS) {
                        acceptor.ready = Ready::Now;
                    }
                }
                Token(slot) => {
                    let Some(guest) = self.guests.get_mut(slot) else { continue };
                    // A closed side reads as an end, an error as an error: both must be read to be seen.
                    guest.readable |=
                        event.is_readable() || event.is_read_closed() || event.is_error();
                    guest.writable |= event.is_writable() || event.is_write_closed();
                    self.drive(slot, now, false);
                }
            }
        }
        for slot in
            std::mem::take(&mut self.again).into_iter().chain(std::mem::take(&mut self.starved))
        {
            self.drive(slot, now, false);
        }
        while let Some(reminder) = self.timers.due(now) {
            self.remind(reminder, now);
        }
        self.accept(now);
        self.deliver_all(now);
        self.office.clerk.end_turn();
    }

    fn remind(&mut self, reminder: Reminder, now: Instant) {
        let Some(guest) = self.guests.get_mut(reminder.slot) else { return };
        if guest.serial == reminder.serial && guest.reminded_at == Some(reminder.at) {
            guest.reminded_at = None;
            let due = guest.deadline().is_some_and(|deadline| deadline <= now);
            self.drive(reminder.slot, now, due);
        }
    }

    /// Hands out the answers that have come. Between two rounds the snapshot ends, so that a request that follows an
    /// answer on its connection sees at least what was answered.
    fn deliver_all(&mut self, now: Instant) {
        loop {
            let mut posts = std::mem::take(&mut self.posts);
            self.office.letterbox.take(POSTS_PER_ROUND, &mut posts);
            if posts.is_empty() {
                self.posts = posts;
                return;
            }
            self.office.clerk.end_turn();
            for post in posts.drain(..) {
                self.deliver(post, now);
            }
            self.posts = posts;
        }
    }

    fn deliver(&mut self, post: Post<Unfinished<A>>, now: Instant) {
        let address = post.address();
        let Ok(slot) = usize::try_from(address.slot) else { return };
        let Some(guest) = self.guests.get_mut(slot) else { return };
        let is_news = matches!(post, Post::News { .. });
        if guest.exchange != address.generation || guest.connection.is_busy() == is_news {
            return;
        }
        let draining = self.drain_by.is_some();
        let moment = Moment { now, limits: &self.limits, draining };
        let connection = &mut guest.connection;
        connection.lend(&mut self.spare_out);
        let office = &mut self.office;
        match post {
            Post::Letter(letter) => connection.answer(moment, |facts, out| {
                let keep = office.clerk.complete(letter.context, letter.answer, facts, out);
                Outcome::Replied { keep }
            }),
            Post::Reply { mut bytes, keep, .. } => connection.answer(moment, |_, out| {
                take_framed(out, &mut bytes);
                office.recycle(bytes);
                Outcome::Replied { keep }
            }),
            Post::Stream { mut head, stream, keep, .. } => connection.answer(moment, |_, out| {
                take_framed(out, &mut head);
                office.recycle(head);
                Outcome::Stream { stream, keep }
            }),
            Post::Piece { piece, onward, .. } => {
                connection.piece(piece, moment);
                connection.go_on(onward.endless);
                if let Some(pause) = onward.pause {
                    rest(connection, &pause, address, office, moment);
                }
            }
            Post::Late { stream, .. } => connection.answer(moment, |_, _| Outcome::Late { stream }),
            Post::NotYet { stream, pause, .. } => {
                connection.put_stream(stream);
                rest(connection, &pause, address, office, moment);
            }
            Post::News { .. } => connection.end_rest(),
        }
        self.drive(slot, now, false);
    }

    /// Moves a connection on until it waits for its peer, for an answer or for its next turn. `due`: its deadline has
    /// passed.
    fn drive(&mut self, slot: usize, now: Instant, due: bool) {
        let Some(guest) = self.guests.get_mut(slot) else { return };
        let guest = &mut **guest;
        let Guest { transport, connection, peer, readable, writable, exchange, lane, .. } = guest;
        let moment = Moment { now, limits: &self.limits, draining: self.drain_by.is_some() };
        let slot_number =
            u32::try_from(slot).expect("the cap on connections is below four billion");
        let port = guest.port;
        if *writable {
            match transport.flush() {
                Moved::Bytes(_) | Moved::Aside => {}
                Moved::Blocked => *writable = false,
                Moved::Failed => connection.abort(),
            }
        }
        let mut desk =
            Desk { office: &mut self.office, exchange, lane, slot: slot_number, peer, port };
        connection.lend(&mut self.spare_out);
        if due {
            connection.expire(moment, &mut desk);
            if transport.deadline().is_some_and(|by| by <= now) {
                transport.give_up(&mut self.workbench);
                connection.abort();
            }
        }
        if moment.draining {
            connection.end_stream(moment);
        }
        let mut reads_left = READS_PER_TURN;
        let closing = loop {
            connection.resume(moment, &mut desk);
            while *readable && reads_left > 0 && connection.wants_input() {
                reads_left -= 1;
                let moved = transport.read(&mut self.scratch, &mut self.workbench);
                if let Some(certificate) = transport.take_certificate() {
                    connection.identify(Arc::clone(&certificate));
                    *desk.peer = Peer { certificate: Some(certificate), ..desk.peer.clone() };
                }
                match moved {
                    Moved::Bytes(0) => {
                        *readable = false;
                        connection.end_of_input();
                    }
                    Moved::Bytes(bytes) => {
                        connection.receive(&self.scratch[..bytes], moment, &mut desk);
                    }
                    Moved::Aside => {}
                    Moved::Blocked => *readable = false,
                    Moved::Failed => {
                        *readable = false;
                        connection.abort();
                    }
                }
            }
            while *writable && !connection.output().is_empty() {
                match transport.write(connection.output(), &mut self.workbench) {
                    Moved::Bytes(bytes) => connection.wrote(bytes, moment),
                    Moved::Aside => {}
                    Moved::Blocked => *writable = false,
                    Moved::Failed => {
                        *writable = false;
                        connection.abort();
                    }
                }
            }
            let closing = connection.closing(moment);
            if closing == Closing::Half {
                transport.end_output();
            }
            let reads_on = *readable && reads_left > 0 && connection.wants_input();
            if !connection.can_resume() && !reads_on {
                break closing;
            }
        };
        if *readable && connection.wants_input() {
            self.again.push(slot);
        }
        if let Some((stream, facts)) = connection.take_stream() {
            let address = Address { slot: slot_number, generation: *desk.exchange };
            match desk.office.go_on(stream, facts, address, *desk.lane) {
                Ok(()) => {}
                Err(TrySendError::Full(stream)) => {
                    connection.put_stream(stream);
                    self.starved.push(slot);
                }
                Err(TrySendError::Disconnected(stream)) => {
                    connection.put_stream(stream);
                    connection.abort();
                }
            }
        }
        connection.give_back(&mut self.spare_out);
        let closing = if closing == Closing::Open { connection.closing(moment) } else { closing };
        match closing {
            Closing::Open | Closing::Half => {
                let deadline = guest.deadline();
                self.timers.keep(deadline, &mut guest.reminded_at, slot, guest.serial);
            }
            Closing::Whole => {
                if guest.connection.ends_well() {
                    guest.transport.end_output();
                }
                drop(self.guests.remove(slot));
            }
            Closing::Reserved => {
                if !guest.shut {
                    guest.shut = true;
                    guest.transport.end();
                }
            }
        }
    }
}

/// Lets a reply rest until there is news, unless there is some already.
fn rest<A: App>(
    connection: &mut Connection<A::Admitted, Unfinished<A>>,
    pause: &Pause,
    address: Address,
    office: &Office<A>,
    moment: Moment<'_>,
) where
    Unfinished<A>: Send + 'static,
{
    let letterbox = Arc::clone(&office.letterbox) as Arc<dyn Mailbox>;
    if pause.news.rest(letterbox, address) {
        connection.rest(pause.until, moment);
    }
}

/// Moves a framed reply to the end of `out`, without a copy where that is possible. `bytes` is left for reuse.
fn take_framed(out: &mut Vec<u8>, bytes: &mut Vec<u8>) {
    if out.is_empty() {
        std::mem::swap(out, bytes);
    } else {
        out.extend_from_slice(bytes);
    }
}
