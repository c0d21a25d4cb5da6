//! New connections. This module opens the listeners and takes connections from them; no error of an accept, and no
//! lack of descriptors, ever ends it.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::Port;
use super::gate::Gate;
use super::limits::BACKLOG;
use crate::certificates::ServerIdentity;

/// So many errors in one pass, and the rest waits for the next: an error that stays must not hold the loop.
const ERRORS_PER_PASS: usize = 16;

/// Opens a listener. `shared`: several loops listen on the same port, and the kernel deals connections out.
///
/// # Errors
/// When the address can't be had.
pub(super) fn listen(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    // So that a restart needn't wait for the last connections of the former service to be forgotten.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    // Inherited by every connection: a reply leaves at once.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// The descriptor that is given up to take a connection off the queue when there is no other left.
pub(super) struct SpareDescriptor(Option<File>);

impl SpareDescriptor {
    pub(super) fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }
}

/// Whether to accept, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    /// Not before the poll says so.
    No,
    Now,
    /// After a pause: there was no descriptor, or nothing but errors.
    Later,
}

/// One loop's end of a port.
pub(super) struct Acceptor {
    listener: TcpListener,
    pub(super) port: Port,
    /// What is shown to those who come in here; None: plaintext.
    pub(super) identity: Option<Arc<ServerIdentity>>,
    pub(super) ready: Ready,
    errors: usize,
}

impl Acceptor {
    pub(super) fn new(
        socket: Socket,
        port: Port,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let mut listener = TcpListener::from_std(socket.into());
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self { listener, port, identity: None, ready: Ready::No, errors: 0 })
    }

    /// Takes one connection. None: there is none, or none can be taken now, and `ready` says how to go on.
    pub(super) fn next(
        &mut self,
        gate: &Gate,
        spare: &mut SpareDescriptor,
    ) -> Option<(TcpStream, IpAddr)> {
        self.errors = 0;
        loop {
            let error = match self.listener.accept() {
                Ok((socket, peer)) => return Some((socket, peer.ip())),
                Err(error) => error,
            };
            if error.kind() == io::ErrorKind::WouldBlock {
                self.ready = Ready::No;
                return None;
            }
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            gate.accept_failed();
            self.errors += 1;
            let starved = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
            if starved {
                // One client hears at once that there is no room, instead of waiting for nothing.
                spare.0 = None;
                drop(self.listener.accept());
                *spare = SpareDescriptor::new();
            }
            if starved || self.errors >= ERRORS_PER_PASS {
                self.ready = Ready::Later;
                return None;
            }
        }
    }
}
