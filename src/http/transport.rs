//! The socket behind a connection. This module is the one place that touches it, so that what lies between the bytes
//! of HTTP and the bytes on the wire can change without anybody noticing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// How a read or write went.
pub(super) enum Moved {
    /// So many bytes. For a read, zero is the end.
    Bytes(usize),
    /// Nothing now; the poll will tell when.
    Blocked,
    Failed,
}

/// A non-blocking socket.
pub(super) struct Transport {
    socket: TcpStream,
}

impl Transport {
    /// Registers `socket` for everything, by edges.
    pub(super) fn new(
        mut socket: TcpStream,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { socket })
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Moved {
        moved(|| self.socket.read(buffer))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Moved {
        match moved(|| self.socket.write(bytes)) {
            Moved::Bytes(0) => Moved::Failed,
            moved => moved,
        }
    }

    /// Tells the peer that nothing more comes.
    pub(super) fn end_output(&mut self) {
        // A peer that is gone already needs no telling.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends both sides and keeps the descriptor.
    pub(super) fn end(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
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
