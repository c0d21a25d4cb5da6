//! The socket behind a connection. This module is the one place that touches it, so that what lies between the bytes
//! of HTTP and the bytes on the wire can change without anybody noticing: here are plain sockets, beside it TLS.

mod tls;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ServerConfig;

use super::Port;
use crate::certificates::PeerCertificate;
use tls::TlsSocket;
pub(super) use tls::Workbench;

/// How a read or write went.
pub(super) enum Moved {
    /// So many bytes. For a read, zero is the end.
    Bytes(usize),
    /// Something came that holds no byte of HTTP; there may be more.
    Aside,
    /// Nothing now; the poll will tell when.
    Blocked,
    Failed,
}

/// What TLS on a new connection needs to know.
pub(super) struct Greeting {
    pub(super) config: Arc<ServerConfig>,
    pub(super) peer: IpAddr,
    pub(super) port: Port,
    /// When the handshake must be over.
    pub(super) deadline: Instant,
}

/// A non-blocking socket.
pub(super) enum Transport {
    Plain(TcpStream),
    /// Boxed, so that a plain connection doesn't pay for it.
    Tls(Box<TlsSocket>),
}

impl Transport {
    /// Registers `socket` for everything, by edges. With a `greeting` it speaks TLS.
    pub(super) fn new(
        mut socket: TcpStream,
        registry: &Registry,
        token: Token,
        greeting: Option<Greeting>,
    ) -> io::Result<Self> {
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(match greeting {
            None => Self::Plain(socket),
            Some(greeting) => Self::Tls(Box::new(TlsSocket::new(socket, greeting)?)),
        })
    }

    /// Reads once. `buffer` has [`super::limits::READ_BYTES`].
    pub(super) fn read(&mut self, buffer: &mut [u8], bench: &mut Workbench) -> Moved {
        match self {
            Self::Plain(socket) => moved(|| socket.read(buffer)),
            Self::Tls(socket) => socket.read(buffer, bench),
        }
    }

    /// Writes from the front of `bytes`. After [`Moved::Blocked`] the same bytes must come again, and may be followed
    /// by more.
    pub(super) fn write(&mut self, bytes: &[u8], bench: &mut Workbench) -> Moved {
        match self {
            Self::Plain(socket) => sent(moved(|| socket.write(bytes))),
            Self::Tls(socket) => socket.write(bytes, bench),
        }
    }

    /// Writes what is no answer and had to wait: the rest of a handshake, the last word of a connection.
    pub(super) fn flush(&mut self) -> Moved {
        match self {
            Self::Plain(_) => Moved::Bytes(0),
            Self::Tls(socket) => socket.flush(),
        }
    }

    /// When a connection that is still shaking hands is cut off.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(socket) => socket.deadline(),
        }
    }

    /// Cuts a handshake off that has taken too long.
    pub(super) fn give_up(&mut self, bench: &mut Workbench) {
        match self {
            Self::Plain(_) => {}
            Self::Tls(socket) => socket.give_up(bench),
        }
    }

    /// The certificate of the peer, once, when the handshake has verified it.
    pub(super) fn take_certificate(&mut self) -> Option<Arc<PeerCertificate>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(socket) => socket.take_certificate(),
        }
    }

    /// Tells the peer that nothing more comes.
    pub(super) fn end_output(&mut self) {
        match self {
            // A peer that is gone already needs no telling.
            Self::Plain(socket) => drop(socket.shutdown(Shutdown::Write)),
            Self::Tls(socket) => socket.end_output(),
        }
    }

    /// Ends both sides and keeps the descriptor.
    pub(super) fn end(&mut self) {
        let socket = match self {
            Self::Plain(socket) => socket,
            Self::Tls(socket) => socket.bare(),
        };
        let _ = socket.shutdown(Shutdown::Both);
    }
}

fn moved(mut call: impl FnMut() -> io::Result<usize>) -> Moved {
    loop {
        match call() {
            Ok(bytes) => return Moved::Bytes(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Moved::Blocked,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Moved::Failed,
        }
    }
}

/// A write of nothing is a failure.
fn sent(moved: Moved) -> Moved {
    if matches!(moved, Moved::Bytes(0)) { Moved::Failed } else { moved }
}
