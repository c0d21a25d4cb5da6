//! Who comes in, who is turned away, and when the doors close. This module is the part of a loop that deals with its
//! listeners.

use std::io;
use std::net::{IpAddr, Shutdown};
use std::time::Instant;

use mio::Token;
use mio::net::TcpStream;

use super::super::accept::{Acceptor, Ready};
use super::super::connection::{Connection, Moment};
use super::super::gate::Pass;
use super::super::limits::ACCEPTS_PER_TURN;
use super::super::reply::Facts;
use super::super::transport::{Greeting, Transport};
use super::super::{App, Unfinished};
use super::{Guest, PollLoop};

impl<A: App> PollLoop<A>
where
    Unfinished<A>: 'static,
{
    /// Lets in who waits at the ports.
    pub(super) fn accept(&mut self, now: Instant) {
        let mut left = ACCEPTS_PER_TURN;
        let mut acceptors = std::mem::take(&mut self.acceptors);
        for acceptor in &mut acceptors {
            while acceptor.ready != Ready::No && left > 0 {
                left -= 1;
                let taken = acceptor.next(&self.gate, &mut self.spare_descriptor);
                let Some((socket, peer)) = taken else { break };
                match self.gate.admit(peer) {
                    Some(pass) => self.welcome(socket, peer, acceptor, pass, now),
                    None if acceptor.identity.is_some() => gate_is_full(socket),
                    None => self.turn_away(socket, now),
                }
            }
        }
        self.acceptors = acceptors;
    }

    fn welcome(
        &mut self,
        socket: TcpStream,
        peer: IpAddr,
        acceptor: &Acceptor,
        pass: Pass,
        now: Instant,
    ) {
        let port = acceptor.port;
        let greeting = acceptor.identity.as_ref().map(|identity| Greeting {
            config: identity.current(),
            peer,
            port,
            deadline: now + self.limits.handshake_time,
        });
        let place = self.guests.vacant_entry();
        let slot = place.key();
        // Where the system can't watch one more socket the peer sees it close.
        let Ok(transport) = Transport::new(socket, self.poll.registry(), Token(slot), greeting)
        else {
            return;
        };
        self.serial += 1;
        let moment = Moment { now, limits: &self.limits, draining: self.drain_by.is_some() };
        let connection = Connection::new(peer, port, moment);
        let guest = place.insert(Box::new(Guest {
            transport,
            connection,
            peer: peer.into(),
            port,
            readable: true,
            writable: true,
            shut: false,
            exchange: 0,
            lane: 0,
            serial: self.serial,
            reminded_at: None,
            _pass: pass,
        }));
        let deadline = guest.deadline();
        self.timers.keep(deadline, &mut guest.reminded_at, slot, self.serial);
    }

    /// Says why, as far as that goes without waiting, and closes.
    fn turn_away(&mut self, mut socket: TcpStream, now: Instant) {
        let facts = Facts { head_only: false, chunks: true, keep: false, complete_at: now };
        let mut out = std::mem::take(&mut self.spare_out);
        out.clear();
        self.office.clerk.refuse(503, "there are too many connections", facts, &mut out);
        let _ = io::Write::write(&mut socket, &out);
        let _ = socket.shutdown(Shutdown::Write);
        // Bytes left unread would turn the close into a reset, which may overtake the reply.
        let _ = io::Read::read(&mut socket, &mut self.scratch);
        out.clear();
        self.spare_out = out;
    }

    /// From now on nobody comes in, every reply is the last of its connection, and who is idle is closed.
    pub(super) fn begin_drain(&mut self, now: Instant) {
        // Whoever the kernel has let in already is served; the rest is refused by the kernel from here on.
        for acceptor in &mut self.acceptors {
            acceptor.ready = Ready::Now;
        }
        self.accept(now);
        self.acceptors.clear();
        self.office.letterbox.drain();
        self.drain_by = Some(now + self.limits.drain_time);
        let slots: Vec<usize> = self.guests.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            if let Some(guest) = self.guests.get_mut(slot) {
                // A request may have come since the last look.
                guest.readable = true;
            }
            self.drive(slot, now, false);
        }
        self.office.clerk.end_turn();
    }
}

/// Closes a connection that expects TLS: words in the clear would mean nothing to it, and a handshake only to say no
/// is what an attacker would like.
fn gate_is_full(mut socket: TcpStream) {
    let _ = socket.shutdown(Shutdown::Write);
    // Bytes left unread would turn the close into a reset.
    let _ = io::Read::read(&mut socket, &mut [0; 1024]);
}
