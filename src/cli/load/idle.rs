//! Connections that are held and not used. This module opens many, asks one thing on each so that the service has
//! served it, and asks again at the end: a service that lost one in between, or answers it wrongly, fails.
//!
//! A client has some 28,000 ports for each of its addresses, and a service may let in only so many connections of one
//! address. To a loopback address they therefore come from many: 127.0.0.1, 127.0.0.2 and so on.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context;
use socket2::{Domain, Socket, Type};

use super::Server;
use super::link::CONNECT_MAX;
use super::reply::{self, Reply};
use super::tally::Tally;
use super::wire::Wire;
use crate::cli::words;

/// Connections from one loopback address: below what a service lets in by default.
const PER_ADDRESS: usize = 900;
/// Every connection is asked again so often, before a service may take it for forgotten.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Opens so many connections, asks each, holds all of them for `duration`, and asks each again.
pub(super) fn hold(
    server: &Server,
    connections: usize,
    duration: Duration,
    loud: bool,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let request = format!("GET /health HTTP/1.1\r\n{}\r\n", server.fields).into_bytes();
    let began = Instant::now();
    let mut held = Vec::with_capacity(connections);
    for index in 0..connections {
        let mut stream = connect(server, index)
            .with_context(|| format!("open connection {} to {}", index + 1, server.address))?;
        ask(&mut stream, &request, tally);
        held.push(stream);
    }
    if loud {
        let line = format!("{} connections are open\n", held.len());
        // Progress that nobody can read is no reason to stop.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    let until = Instant::now() + duration;
    loop {
        let pause = until.saturating_duration_since(Instant::now());
        std::thread::park_timeout(pause.min(ASK_AGAIN));
        let is_over = Instant::now() >= until;
        if is_over || pause > ASK_AGAIN {
            held.iter_mut().for_each(|stream| ask(stream, &request, tally));
        }
        if is_over {
            break;
        }
    }
    tally.elapsed = began.elapsed();
    Ok(())
}

/// Asks one thing over TLS, before there is any load. A service that refuses our certificate says so only after the
/// handshake is over for us, and would then have to say it to every connection again and again.
pub(super) fn try_tls(server: &Server) -> anyhow::Result<()> {
    let address = server.address;
    let request = format!("GET /health HTTP/1.1\r\n{}\r\n", server.fields).into_bytes();
    let asked = connect(server, 0).map_err(anyhow::Error::from);
    let error = match asked.and_then(|mut stream| exchange(&mut stream, &request)) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    let tls = io.and_then(words::of_tls);
    let (words, hint) = match tls {
        Some(tls) => (tls.to_string(), words::tls_hint(tls)),
        None => (format!("{error:#}"), words::RUNNING_HINT),
    };
    anyhow::bail!("cannot reach the service at {address}: {}; {hint}", words::escaped(&words))
}

fn connect(server: &Server, index: usize) -> std::io::Result<Wire<TcpStream>> {
    let address = server.address;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let IpAddr::V4(host) = address.ip()
        && host.is_loopback()
    {
        let number = u32::try_from(index / PER_ADDRESS).unwrap_or(0);
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + number);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.connect_timeout(&address.into(), CONNECT_MAX)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_nodelay(true)?;
    Wire::greet(stream, server)
}

/// Asks once and counts the answer.
fn ask(stream: &mut Wire<TcpStream>, request: &[u8], tally: &mut Tally) {
    let began = Instant::now();
    tally.sent += 1;
    tally.requests += 1;
    match exchange(stream, request) {
        Ok((200, false)) => {
            tally.accepted += 1;
            tally.latencies.add(began.elapsed());
        }
        Ok((200, true)) => tally.surprise("the service closes a connection that is held".into()),
        Ok((status, _)) => tally.reject(status, 1, false),
        Err(error) => tally.surprise(format!("a connection that was held: {error:#}")),
    }
}

/// The status of the answer, and whether the connection ends with it.
fn exchange(stream: &mut Wire<TcpStream>, request: &[u8]) -> anyhow::Result<(u16, bool)> {
    stream.write_all(request).and_then(|()| stream.flush()).context("it is closed")?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some((Reply { status, close, .. }, _)) = reply::parse(&answer)? {
            return Ok((status, close));
        }
        let read = stream.read(&mut piece).context("it gives no answer")?;
        anyhow::ensure!(read > 0, "it was closed");
        answer.extend_from_slice(&piece[..read]);
    }
}
