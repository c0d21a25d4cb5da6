//! A socket that speaks TLS. This module moves records between the socket and rustls without a buffer of its own: what
//! is read and what is sealed passes through the loop's [`Workbench`], and a connection owns only what is incomplete.
//! An idle one owns nothing but its keys.
//!
//! # What must stay true
//!
//! * Bytes of an answer count as written when their record is on its way whole, so the deadline for writing holds for
//!   a peer that takes half a record, too.
//! * Whatever follows a failure is thrown away: no byte of HTTP comes out of a connection that rustls has given up.
//! * A `close_notify` says that nothing is missing, so it is sent only by whoever knows that.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};

use super::super::Port;
use super::super::handshakes::{Fault, Faults};
use super::super::limits::{READ_BYTES, UNSENT_TLS_BYTES_MAX};
use super::{Greeting, Moved, moved, sent};
use crate::certificates::PeerCertificate;

/// What one write seals at most: four full records.
const SEAL_BYTES: usize = 64 << 10;
/// What TLS adds to those: head, type and tag of each record, and a change of keys before them.
const OVERHEAD_BYTES: usize = 1024;
/// More than the record of a `close_notify`.
const LAST_WORD_BYTES: usize = 64;
/// Refused handshakes are told so often: anybody can cause them.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The buffers of a loop for all its TLS connections. Empty as long as there is none.
pub(in super::super) struct Workbench {
    records: Vec<u8>,
    sealed: Vec<u8>,
    faults: Arc<Faults>,
    told_at: Option<Instant>,
    untold: u64,
}

impl Workbench {
    pub(in super::super) fn new(faults: Arc<Faults>) -> Self {
        Self { records: Vec::new(), sealed: Vec::new(), faults, told_at: None, untold: 0 }
    }

    /// Counts a handshake that came to nothing, and says why unless the last such line is very young.
    fn tell(&mut self, peer: IpAddr, port: Port, fault: Fault, why: &str) {
        self.faults.count(fault);
        if self.told_at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            self.untold += 1;
            return;
        }
        log::warn!(
            peer:% = peer, port:? = port, reason = fault.as_str(), untold = self.untold;
            "a TLS handshake with {peer} came to nothing: {why}"
        );
        (self.told_at, self.untold) = (Some(Instant::now()), 0);
    }
}

/// A socket with its TLS session.
pub(in super::super) struct TlsSocket {
    socket: TcpStream,
    session: UnbufferedServerConnection,
    /// Records, or messages of a handshake, of which a part is still to come.
    partial: Vec<u8>,
    /// Sealed bytes that the socket has not taken yet, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// So many bytes of an answer are in `unsent` and have not been counted as written.
    promised: usize,
    /// None: the handshake is over.
    handshake_by: Option<Instant>,
    certificate: Option<Arc<PeerCertificate>>,
    peer: IpAddr,
    port: Port,
    /// The peer has said that nothing more comes.
    peer_ended: bool,
    /// Our last word is in `unsent` or has been sent.
    output_ended: bool,
    failed: bool,
}

/// What came out of some records.
struct Opened {
    used: usize,
    bytes: usize,
}

impl TlsSocket {
    pub(super) fn new(socket: TcpStream, greeting: Greeting) -> io::Result<Self> {
        let Greeting { config, peer, port, deadline } = greeting;
        let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Self {
            socket,
            session,
            partial: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            promised: 0,
            handshake_by: Some(deadline),
            certificate: None,
            peer,
            port,
            peer_ended: false,
            output_ended: false,
            failed: false,
        })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.handshake_by
    }

    pub(super) fn give_up(&mut self, bench: &mut Workbench) {
        let _ = self.fail(Fault::Timeout, "it took too long", bench);
    }

    pub(super) fn take_certificate(&mut self) -> Option<Arc<PeerCertificate>> {
        self.certificate.take()
    }

    pub(super) fn bare(&self) -> &TcpStream {
        &self.socket
    }

    /// Reads once from the socket and opens what is complete.
    pub(super) fn read(&mut self, buffer: &mut [u8], bench: &mut Workbench) -> Moved {
        if self.failed {
            return Moved::Failed;
        }
        if self.peer_ended {
            return Moved::Bytes(0);
        }
        bench.records.resize(READ_BYTES, 0);
        let mut records = std::mem::take(&mut bench.records);
        let moved = self.read_into(&mut records, buffer, bench);
        bench.records = records;
        moved
    }

    fn read_into(&mut self, records: &mut [u8], buffer: &mut [u8], bench: &mut Workbench) -> Moved {
        let kept = self.partial.len();
        if kept >= records.len() {
            return self.fail(Fault::Protocol, "a message is too long", bench);
        }
        let read = match moved(|| self.socket.read(&mut records[kept..])) {
            Moved::Bytes(0) => {
                if self.handshake_by.is_some() {
                    return self.fail(Fault::Closed, "the peer has hung up", bench);
                }
                self.peer_ended = true;
                return Moved::Bytes(0);
            }
            Moved::Bytes(read) => read,
            Moved::Failed => return self.fail(Fault::Closed, "the connection broke", bench),
            other @ (Moved::Blocked | Moved::Aside) => return other,
        };
        records[..kept].copy_from_slice(&self.partial);
        let filled = kept + read;
        let opened = match self.open(&mut records[..filled], buffer) {
            Ok(opened) => opened,
            Err(error) => {
                let _alert_on_its_way = self.flush();
                return self.fail(Fault::of(&error), &error.to_string(), bench);
            }
        };
        self.keep(&records[opened.used..filled]);
        if self.handshake_by.is_some() && !self.session.is_handshaking() {
            self.handshake_is_over();
        }
        if self.unsent.len() > UNSENT_TLS_BYTES_MAX {
            // A peer that makes us answer and takes nothing.
            return self.fail(Fault::Protocol, "the peer takes nothing", bench);
        }
        if let Moved::Failed = self.flush() {
            return self.fail(Fault::Closed, "the connection broke", bench);
        }
        match opened.bytes {
            0 if self.peer_ended => Moved::Bytes(0),
            0 => Moved::Aside,
            bytes => Moved::Bytes(bytes),
        }
    }

    /// Keeps the incomplete rest of what has been read, in as little memory as it needs.
    fn keep(&mut self, rest: &[u8]) {
        self.partial.clear();
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(rest);
        }
    }

    /// Has rustls work off `records`; what they hold for HTTP goes to `plain`.
    fn open(&mut self, records: &mut [u8], plain: &mut [u8]) -> Result<Opened, rustls::Error> {
        let (mut used, mut bytes) = (0, 0);
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.session.process_tls_records(&mut records[used..]);
            let is_over = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        // What is opened is shorter than its record, so it fits where the records fitted.
                        let end = bytes + record.payload.len();
                        plain[bytes..end].copy_from_slice(record.payload);
                        bytes = end;
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut self.unsent, |room| data.encode(room))?;
                    false
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.peer_ended = true;
                    false
                }
                Ok(
                    ConnectionState::BlockedHandshake
                    | ConnectionState::WriteTraffic(_)
                    | ConnectionState::Closed,
                ) => true,
                // Early data is never offered.
                Ok(_) => return Err(rustls::Error::General("an unknown state".to_string())),
                Err(error) => {
                    self.alert(&mut records[used..]);
                    return Err(error);
                }
            };
            used += discard;
            if is_over {
                return Ok(Opened { used, bytes });
            }
        }
    }

    /// Fetches the alert that tells the peer what is wrong, if rustls has one.
    fn alert(&mut self, records: &mut [u8]) {
        let state = self.session.process_tls_records(records).state;
        if let Ok(ConnectionState::EncodeTlsData(mut data)) = state {
            let _ = encode(&mut self.unsent, |room| data.encode(room));
        }
    }

    fn handshake_is_over(&mut self) {
        self.handshake_by = None;
        let shown = self.session.peer_certificates().and_then(|chain| chain.first());
        if let Some(der) = shown {
            let certificate = Arc::new(PeerCertificate::verified(der));
            log::info!(
                peer:% = self.peer, port:? = self.port, subject = certificate.subject();
                "a client has shown a certificate"
            );
            self.certificate = Some(certificate);
        }
    }

    /// Gives the connection up. `fault` is why, if it is still shaking hands.
    fn fail(&mut self, fault: Fault, why: &str, bench: &mut Workbench) -> Moved {
        self.failed = true;
        if self.handshake_by.is_some() {
            bench.tell(self.peer, self.port, fault, why);
        } else {
            log::debug!(peer:% = self.peer; "a TLS connection failed: {why}");
        }
        let _ = self.socket.shutdown(Shutdown::Write);
        // Bytes left unread would turn the close into a reset, which may overtake the alert.
        bench.sealed.resize(SEAL_BYTES + OVERHEAD_BYTES, 0);
        let _ = self.socket.read(&mut bench.sealed);
        Moved::Failed
    }

    /// Seals the front of `bytes` and writes it.
    pub(super) fn write(&mut self, bytes: &[u8], bench: &mut Workbench) -> Moved {
        match self.flush() {
            Moved::Bytes(_) | Moved::Aside => {}
            stopped @ (Moved::Blocked | Moved::Failed) => return stopped,
        }
        if self.promised > 0 {
            return Moved::Bytes(std::mem::take(&mut self.promised));
        }
        let bytes = &bytes[..bytes.len().min(SEAL_BYTES)];
        bench.sealed.resize(SEAL_BYTES + OVERHEAD_BYTES, 0);
        let Some(length) = self.seal(|traffic| traffic.encrypt(bytes, &mut bench.sealed)) else {
            self.failed = true;
            return Moved::Failed;
        };
        let sealed = &bench.sealed[..length];
        // What rustls itself had to say goes first.
        let written = if self.unsent.is_empty() {
            match sent(moved(|| self.socket.write(sealed))) {
                Moved::Bytes(written) => written,
                Moved::Blocked | Moved::Aside => 0,
                Moved::Failed => return Moved::Failed,
            }
        } else {
            0
        };
        if written == sealed.len() {
            return Moved::Bytes(bytes.len());
        }
        self.unsent.extend_from_slice(&sealed[written..]);
        self.promised = bytes.len();
        match self.flush() {
            Moved::Bytes(_) | Moved::Aside => Moved::Bytes(std::mem::take(&mut self.promised)),
            stopped @ (Moved::Blocked | Moved::Failed) => stopped,
        }
    }

    /// Does `work` where rustls lets something be sealed. None: it doesn't, or it failed.
    fn seal(
        &mut self,
        mut work: impl FnMut(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
        ) -> Result<usize, rustls::unbuffered::EncryptError>,
    ) -> Option<usize> {
        loop {
            // What is incomplete stands in front, as it does when more of it comes.
            let status = self.session.process_tls_records(&mut self.partial);
            let discard = status.discard;
            let sealed = match status.state.ok()? {
                ConnectionState::WriteTraffic(mut traffic) => Some(work(&mut traffic).ok()?),
                ConnectionState::EncodeTlsData(mut data) => {
                    encode(&mut self.unsent, |room| data.encode(room)).ok()?;
                    None
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    None
                }
                ConnectionState::PeerClosed => {
                    self.peer_ended = true;
                    None
                }
                _ => return None,
            };
            self.partial.drain(..discard);
            if sealed.is_some() {
                return sealed;
            }
        }
    }

    /// Writes what has been sealed before.
    pub(super) fn flush(&mut self) -> Moved {
        let mut written = 0;
        while self.sent < self.unsent.len() {
            match sent(moved(|| self.socket.write(&self.unsent[self.sent..]))) {
                Moved::Bytes(bytes) => {
                    self.sent += bytes;
                    written += bytes;
                }
                stopped => return stopped,
            }
        }
        if self.sent > 0 {
            (self.unsent, self.sent) = (Vec::new(), 0);
            if self.output_ended {
                let _ = self.socket.shutdown(Shutdown::Write);
            }
        }
        Moved::Bytes(written)
    }

    /// Says that nothing more comes, as TLS says it, and then as TCP does.
    pub(super) fn end_output(&mut self) {
        if self.output_ended || self.failed {
            return;
        }
        self.output_ended = true;
        let mut last_word = [0; LAST_WORD_BYTES];
        let sealed = if self.handshake_by.is_none() {
            self.seal(|traffic| traffic.queue_close_notify(&mut last_word))
        } else {
            None
        };
        self.unsent.extend_from_slice(&last_word[..sealed.unwrap_or(0)]);
        if self.unsent.is_empty() {
            let _ = self.socket.shutdown(Shutdown::Write);
        } else {
            // Where it is blocked the poll tells when, and the socket is shut behind the last byte.
            let _ = self.flush();
        }
    }
}

/// Appends to `unsent` what `write` puts into the room that it asks for.
fn encode(
    unsent: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<(), rustls::Error> {
    let from = unsent.len();
    loop {
        match write(&mut unsent[from..]) {
            Ok(written) => {
                unsent.truncate(from + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(short)) => {
                unsent.resize(from + short.required_size, 0);
            }
            Err(error) => return Err(rustls::Error::General(error.to_string())),
        }
    }
}
