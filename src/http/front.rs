//! The ports. This module binds them once, for all loops, and starts the loops `http-N`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam::channel::Sender;
use mio::{Poll, Waker};

use super::accept::{Acceptor, listen};
use super::gate::Gate;
use super::handshakes::Faults;
use super::limits::Limits;
use super::poll_loop::{PollLoop, Seat, WAKE, listener_token};
use super::worker::Job;
use super::{App, Port, turns};
use crate::certificates::ServerIdentity;
use crate::component::Component;

/// The bound ports and the seats of the loops.
pub struct Front {
    seats: Vec<Option<Seat>>,
    limits: Arc<Limits>,
    gate: Arc<Gate>,
    api: SocketAddr,
    metrics: Option<SocketAddr>,
    handle: FrontHandle,
}

/// A way to the running loops, for whoever stops or watches them.
#[derive(Clone)]
pub struct FrontHandle {
    wakers: Arc<[Arc<Waker>]>,
    gate: Arc<Gate>,
}

impl Front {
    /// Binds the ports for `loops` loops. Port 0 takes a free one, the same for all loops. Connections queue up in the
    /// kernel from here on.
    ///
    /// # Errors
    /// When an address can't be had, for example because another program listens there.
    pub fn bind(
        api: SocketAddr,
        metrics: Option<SocketAddr>,
        loops: usize,
        limits: Limits,
    ) -> io::Result<Self> {
        let loops = loops.max(1);
        let mut seats = Vec::with_capacity(loops);
        for _ in 0..loops {
            let poll = Poll::new()?;
            let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
            seats.push(Seat { poll, acceptors: Vec::new(), waker });
        }
        let api = open(api, Port::Api, &mut seats)?;
        let metrics =
            metrics.map(|address| open(address, Port::Metrics, &mut seats)).transpose()?;
        let gate = Gate::new(&limits);
        let wakers = seats.iter().map(|seat| Arc::clone(&seat.waker)).collect();
        let handle = FrontHandle { wakers, gate: Arc::clone(&gate) };
        let seats = seats.into_iter().map(Some).collect();
        Ok(Self { seats, limits: Arc::new(limits), gate, api, metrics, handle })
    }

    /// Has everybody who comes in by `port` speak TLS. To be called before the loops start.
    pub fn secure(&mut self, port: Port, identity: &Arc<ServerIdentity>) {
        let acceptors = self.seats.iter_mut().flatten().flat_map(|seat| &mut seat.acceptors);
        for acceptor in acceptors.filter(|acceptor| acceptor.port == port) {
            acceptor.identity = Some(Arc::clone(identity));
        }
    }

    /// The address of the API, with its real port.
    pub fn api_address(&self) -> SocketAddr {
        self.api
    }

    /// The address of the metrics, with its real port.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// A way to the loops, also when they have started.
    pub fn handle(&self) -> FrontHandle {
        self.handle.clone()
    }

    /// Starts loop `n`, counted from 0. When it is told to stop, and woken ([`FrontHandle::wake`]), it answers what is
    /// in flight, closes everything else and ends, within [`Limits::drain_time`] at the latest.
    ///
    /// # Errors
    /// When there is no such loop, when it has been started before, or when the system gives no thread.
    pub fn start_loop<A>(
        &mut self,
        n: usize,
        app: A,
        jobs: turns::Sender<Job<A>>,
        ended: Sender<String>,
    ) -> io::Result<Component>
    where
        A: App + Send + 'static,
    {
        let seat = self.seats.get_mut(n).and_then(Option::take);
        let seat = seat.ok_or_else(|| io::Error::other(format!("loop {n} has no seat left")))?;
        let (limits, gate) = (Arc::clone(&self.limits), Arc::clone(&self.gate));
        Component::start(format!("http-{n}"), ended, move |stop| {
            PollLoop::new(seat, app, jobs, limits, gate).run(&stop)
        })
    }
}

impl FrontHandle {
    /// Makes every loop look around, for example for its stop signal.
    pub fn wake(&self) {
        for waker in self.wakers.iter() {
            // Where this fails the loop still looks around once a second.
            let _ = waker.wake();
        }
    }

    /// Open connections, of all loops.
    pub fn connections(&self) -> usize {
        self.gate.open()
    }

    /// Bytes of bodies that are on their way in or wait for a worker.
    pub fn body_bytes(&self) -> usize {
        self.gate.bodies().taken()
    }

    /// Bodies that found no room because their tenant had its share.
    pub fn bodies_held_back(&self) -> u64 {
        self.gate.bodies().held_back()
    }

    /// Connections that were turned away for lack of room.
    pub fn turned_away(&self) -> u64 {
        self.gate.turned_away()
    }

    /// TLS handshakes that came to nothing, by reason.
    pub fn handshake_errors(&self) -> &Faults {
        self.gate.faults()
    }

    /// Accepts that failed.
    pub fn accept_errors(&self) -> u64 {
        self.gate.accept_errors()
    }
}

/// Names the address of an error, since there are two to listen on.
fn of(address: SocketAddr) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{address}: {error}"))
}

/// Opens a listener on `address` for each seat.
fn open(address: SocketAddr, port: Port, seats: &mut [Seat]) -> io::Result<SocketAddr> {
    let shared = seats.len() > 1;
    if shared {
        // A shared port would be shared with another program as well, which would get every other connection.
        drop(listen(address, false).map_err(of(address))?);
    }
    let mut address = address;
    for seat in seats {
        let socket = listen(address, shared).map_err(of(address))?;
        if let Some(bound) = socket.local_addr()?.as_socket() {
            address = bound;
        }
        let token = listener_token(seat.acceptors.len());
        seat.acceptors.push(Acceptor::new(socket, port, seat.poll.registry(), token)?);
    }
    Ok(address)
}
