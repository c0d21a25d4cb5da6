//! What lies between a request and its socket: nothing, or TLS. This module makes both look the same, on sockets that
//! wait and on sockets that don't.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use rustls::{ClientConnection, StreamOwned};

use super::Server;

/// A connection to the service over a socket of any kind.
pub(super) enum Wire<S: Read + Write> {
    Plain(S),
    Tls(Box<StreamOwned<ClientConnection, S>>),
}

impl Wire<TcpStream> {
    /// Shakes hands over a connected socket that waits, if the service wants that.
    pub(super) fn greet(mut socket: TcpStream, server: &Server) -> io::Result<Self> {
        let Some(tls) = &server.tls else { return Ok(Self::Plain(socket)) };
        let config = std::sync::Arc::clone(&tls.config);
        let mut session =
            ClientConnection::new(config, tls.name.clone()).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket)?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    /// The same connection over another view of its socket.
    pub(super) fn map<S: Read + Write>(self, view: impl FnOnce(TcpStream) -> S) -> Wire<S> {
        match self {
            Self::Plain(socket) => Wire::Plain(view(socket)),
            Self::Tls(stream) => {
                let StreamOwned { conn, sock } = *stream;
                Wire::Tls(Box::new(StreamOwned::new(conn, view(sock))))
            }
        }
    }
}

impl<S: Read + Write> Wire<S> {
    pub(super) fn socket(&mut self) -> &mut S {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.sock,
        }
    }
}

impl<S: Read + Write> Read for Wire<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl<S: Read + Write> Write for Wire<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
