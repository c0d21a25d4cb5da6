//! How many connections there may be, and how many bytes their bodies may hold. This module counts over all loops, and
//! connections for each address as well, so that one host can't take the places of all the others. What goes wrong
//! before a connection is one is counted here, too.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::handshakes::Faults;
use super::limits::{Limits, SMALL_BODIES_PART};
use crate::room::Rooms;

/// The counters of all loops.
pub(super) struct Gate {
    open_max: usize,
    open_per_ip_max: usize,
    open: AtomicUsize,
    per_ip: Mutex<HashMap<IpAddr, usize>>,
    /// In bytes.
    bodies: Arc<Rooms>,
    turned_away: AtomicU64,
    accept_errors: AtomicU64,
    faults: Arc<Faults>,
}

/// The right to one connection. Given back on drop, whatever way the connection ends.
pub(super) struct Pass {
    gate: Arc<Gate>,
    host: IpAddr,
}

impl Gate {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            open_max: limits.connections_max,
            open_per_ip_max: limits.connections_per_ip_max,
            open: AtomicUsize::new(0),
            per_ip: Mutex::new(HashMap::new()),
            bodies: Rooms::new(
                limits.bodies_bytes_max + limits.bodies_bytes_max / SMALL_BODIES_PART,
            ),
            turned_away: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            faults: Arc::default(),
        })
    }

    /// Lets a connection from `peer` in, if there is room.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Pass> {
        let host = host_of(peer);
        let mut per_ip = self.per_ip.lock();
        let of_host = per_ip.get(&host).copied().unwrap_or(0);
        // Only changed under the lock, so that two loops can't both take the last place.
        let open = self.open.load(Ordering::Relaxed);
        if open >= self.open_max || of_host >= self.open_per_ip_max {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        per_ip.insert(host, of_host + 1);
        self.open.store(open + 1, Ordering::Relaxed);
        Some(Pass { gate: Arc::clone(self), host })
    }

    /// The room for bodies that are on their way in or wait for a worker, in bytes.
    pub(super) fn bodies(&self) -> &Arc<Rooms> {
        &self.bodies
    }

    /// Counts a failed accept.
    pub(super) fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Handshakes that came to nothing.
    pub(super) fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    pub(super) fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut per_ip = self.gate.per_ip.lock();
        if let Some(of_host) = per_ip.get_mut(&self.host) {
            *of_host -= 1;
            if *of_host == 0 {
                per_ip.remove(&self.host);
            }
        }
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One host has one IPv4 address, but a whole /64 of IPv6.
fn host_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(connections_max: usize, connections_per_ip_max: usize) -> Arc<Gate> {
        Gate::new(&Limits { connections_max, connections_per_ip_max, ..Limits::default() })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again() {
        let gate = gate(2, 2);
        let first = gate.admit(ip("10.0.0.1"));
        let second = gate.admit(ip("10.0.0.2"));
        assert!(first.is_some() && second.is_some());
        assert!(gate.admit(ip("10.0.0.3")).is_none());
        drop(first);
        assert_eq!(gate.open(), 1);
        assert!(gate.admit(ip("10.0.0.3")).is_some());
        assert_eq!(gate.turned_away(), 1);
        drop(second);
        assert!(gate.per_ip.lock().is_empty());
    }

    #[test]
    fn one_host_cannot_take_all_places_whatever_address_it_uses() {
        let gate = gate(10, 1);
        let _one = gate.admit(ip("10.0.0.1")).unwrap();
        assert!(gate.admit(ip("::ffff:10.0.0.1")).is_none());
        let _two = gate.admit(ip("2001:db8:0:1::1")).unwrap();
        assert!(gate.admit(ip("2001:db8:0:1:ffff::2")).is_none());
        assert!(gate.admit(ip("2001:db8:0:2::1")).is_some());
    }
}
