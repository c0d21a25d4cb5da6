//! One connection to the service, with at most one request in flight. This module never blocks once it is connected.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::Server;
use super::reply::{self, Reply};
use super::wire::Wire;
use super::workload::Ask;

/// How long the service may take to accept a connection.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A request on its way.
pub(super) struct Flight {
    pub(super) ask: Ask,
    /// When it was to be sent: latency counts from here.
    pub(super) due: Instant,
}

pub(super) struct Link {
    stream: Wire<TcpStream>,
    request: Vec<u8>,
    written: usize,
    answer: Vec<u8>,
    pub(super) flight: Option<Flight>,
}

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the connection was closed")]
    Closed,
    #[error("the connection broke: {0}")]
    Broken(ErrorKind),
    #[error(transparent)]
    Reply(#[from] reply::ReplyError),
    #[error("an answer came that nobody asked for")]
    Unasked,
}

impl From<std::io::Error> for LinkError {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error.kind())
    }
}

impl Link {
    pub(super) fn connect(
        server: &Server,
        registry: &Registry,
        token: Token,
    ) -> std::io::Result<Self> {
        let socket = std::net::TcpStream::connect_timeout(&server.address, CONNECT_MAX)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(CONNECT_MAX))?;
        let mut wire = Wire::greet(socket, server)?;
        wire.socket().set_nonblocking(true)?;
        let mut stream = wire.map(TcpStream::from_std);
        let interests = Interest::READABLE | Interest::WRITABLE;
        registry.register(stream.socket(), token, interests)?;
        Ok(Self { stream, request: Vec::new(), written: 0, answer: Vec::new(), flight: None })
    }

    /// The buffer for the next request, empty.
    pub(super) fn request(&mut self) -> &mut Vec<u8> {
        self.request.clear();
        self.written = 0;
        &mut self.request
    }

    /// Writes as much of the request as the socket takes.
    pub(super) fn write(&mut self) -> Result<(), LinkError> {
        while self.written < self.request.len() {
            match self.stream.write(&self.request[self.written..]) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        match self.stream.flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Reads what is there and hands a whole answer to `settle`, with the request that it answers. Returns whether
    /// the connection is free for another request; an error says that it is to be opened anew.
    pub(super) fn read(
        &mut self,
        scratch: &mut [u8],
        mut settle: impl FnMut(Flight, &Reply<'_>),
    ) -> Result<bool, LinkError> {
        let mut closed = false;
        loop {
            match self.stream.read(scratch) {
                Ok(0) => {
                    closed = true;
                    break;
                }
                Ok(read) => self.answer.extend_from_slice(&scratch[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut free = false;
        if let Some((reply, taken)) = reply::parse(&self.answer)? {
            let flight = self.flight.take().ok_or(LinkError::Unasked)?;
            closed |= reply.close;
            settle(flight, &reply);
            self.answer.drain(..taken);
            if !self.answer.is_empty() {
                return Err(LinkError::Unasked);
            }
            free = true;
        }
        if closed { Err(LinkError::Closed) } else { Ok(free) }
    }

    pub(super) fn close(&mut self, registry: &Registry) {
        // The stream is closed when it is dropped, whatever the poll says to that.
        let _ = registry.deregister(self.stream.socket());
    }
}
