//! TLS, as clients of every kind meet it. This module makes its own authorities and raw TLS clients; each file asks
//! one thing of a service behind them.
//!
//! [`World`] is a service in this process, for what must be seen from inside; [`House`] is one in a process of its
//! own, for what only a process has: signals, its log, and an end.

// Whom the service lets in, with which certificate, and what it says of them.
mod rights;
// Files that are renewed while connections are open.
mod renewal;
// What `check-config` says of files.
mod settings;
// The client commands, with a certificate and without.
mod commands;
// Rows that go on coming.
mod streams;
// What travels, whole, in pieces and to its end.
mod wire;
// Handshakes that come to nothing, and many at once.
mod handshakes;
// Connections that are broken off, abused and never read.
mod breaking;

use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::PrivateKeyDer;
use sentinel::service::{Parts, wall_clock};
use serde_json::{Value, json};

use crate::harness::{InChild, InProcess, PATIENCE, Response, eventually, read_response};
use crate::issuer::Issuer;

/// A certificate and its key.
type Pair = (Certificate, KeyPair);

/// An authority and what it signs.
struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        Self::called("authority")
    }

    fn called(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }

    fn sign(&self, name: &str) -> Pair {
        self.sign_with(name, |_| ())
    }

    /// One that differs from a common certificate.
    fn sign_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names = vec!["localhost".to_string(), "127.0.0.1".to_string()];
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.certificate, &self.key).unwrap(), key)
    }

    /// Writes a certificate of this authority and its key where a service reads them, and returns the certificate.
    fn write(&self, folder: &Path, name: &str) -> Vec<u8> {
        let pair = self.sign(name);
        write(folder, &pair);
        pair.0.der().to_vec()
    }
}

/// Writes a pair as `cert.pem` and `key.pem`.
fn write(folder: &Path, (certificate, key): &Pair) {
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
}

/// What stands around a service that speaks TLS: its files, who signs them, who may come in, and whose tokens count.
struct Surroundings {
    folder: tempfile::TempDir,
    authority: Authority,
    clients: Authority,
    issuer: Issuer,
}

impl Surroundings {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (authority, clients, issuer) = (Authority::new(), Authority::new(), Issuer::start());
        authority.write(folder.path(), "first");
        std::fs::write(folder.path().join("ca.pem"), clients.certificate.pem()).unwrap();
        Self { folder, authority, clients, issuer }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn variables(&self, client_auth: &str) -> Vec<(&'static str, String)> {
        vec![
            ("OAUTH2_JWK_SET_URI", self.issuer.jwk_set_uri()),
            ("OAUTH2_ISSUER_URI", self.issuer.uri()),
            ("SENTINEL_TLS_CERT_FILE", self.path("cert.pem")),
            ("SENTINEL_TLS_KEY_FILE", self.path("key.pem")),
            ("SENTINEL_TLS_CLIENT_CA_FILE", self.path("ca.pem")),
            ("SENTINEL_TLS_CLIENT_AUTH", client_auth.to_string()),
        ]
    }

    /// A certificate that the service knows.
    fn client(&self) -> Pair {
        self.clients.sign("billing")
    }

    fn token(&self) -> String {
        self.issuer.token(json!({}))
    }
}

fn borrowed<'v>(variables: &'v [(&'static str, String)]) -> Vec<(&'static str, &'v str)> {
    variables.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

/// The keys of the issuer come a moment after the start.
fn wait_for_keys(mut connect: impl FnMut() -> Tls, token: &str) {
    eventually("the keys are there", || {
        (connect().get("/processes", token).status == 200).then_some(())
    });
}

/// A service over TLS in this process, with everything around it.
struct World {
    around: Surroundings,
    service: InProcess,
}

impl World {
    fn start(client_auth: &str) -> Self {
        let around = Surroundings::new();
        let mut variables = around.variables(client_auth);
        variables.push(("PROMETHEUS_METRICS_PORT", free_port().to_string()));
        let folder = around.folder.path().join("data");
        let service = InProcess::start(&folder, wall_clock(), Parts::ALL, &borrowed(&variables));
        let world = Self { around, service };
        if client_auth != "required" {
            wait_for_keys(|| world.connect(None), &world.around.token());
        }
        world
    }

    fn api(&self) -> SocketAddr {
        self.service.service.api_address()
    }

    fn connect(&self, certificate: Option<&Pair>) -> Tls {
        Tls::connect(self.api(), &self.around.authority, certificate)
    }
}

/// A service over TLS in a process of its own.
struct House {
    around: Surroundings,
    service: InChild,
    /// Of one who may do everything, and has a certificate that is known.
    token: String,
    pair: Pair,
}

impl House {
    fn start(client_auth: &str) -> Self {
        Self::start_with(client_auth, |_| Vec::new())
    }

    /// With what `prepare` makes of the files and settings.
    fn start_with(
        client_auth: &str,
        prepare: impl FnOnce(&Surroundings) -> Vec<(&'static str, String)>,
    ) -> Self {
        let around = Surroundings::new();
        let mut variables = around.variables(client_auth);
        variables.extend(prepare(&around));
        let service = InChild::start(&around.folder.path().join("data"), &borrowed(&variables));
        let (token, pair) = (around.token(), around.client());
        let house = Self { around, service, token, pair };
        wait_for_keys(|| house.connect(Some(&house.pair)), &house.token);
        house
    }

    fn api(&self) -> SocketAddr {
        self.service.api
    }

    fn connect(&self, certificate: Option<&Pair>) -> Tls {
        Tls::connect(self.api(), &self.around.authority, certificate)
    }

    /// One that the service knows, and has served.
    fn guest(&self) -> Tls {
        let mut guest = self.connect(Some(&self.pair));
        guest.get("/health", "").expect(200);
        guest
    }

    /// The connections that are open, as the service counts them, without the one that asks.
    fn others(&self, guest: &mut Tls) -> usize {
        let scrape = guest.get("/metrics", &self.token).expect(200).text();
        let line = scrape.lines().find_map(|line| line.strip_prefix("sentinel_connections "));
        line.expect("the gauge is there").parse::<usize>().unwrap() - 1
    }

    /// Whatever came before has left nothing behind: newcomers are served, and no connection is held but ours.
    fn is_well(&self, guest: &mut Tls) {
        guest.get("/ready", "").expect(200);
        self.guest().get("/processes", &self.token).expect(200);
        eventually("every place is given back", || (self.others(guest) == 0).then_some(()));
    }

    fn stop(self) {
        assert_eq!(self.service.terminate(), 0);
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A socket that waits for nothing for ever.
fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

/// Ends a connection by a reset.
fn reset(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

/// The client's side of a handshake that has not begun.
fn session(authority: &Authority, certificate: Option<&Pair>) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(ring)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    };
    ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
}

/// What a session has to say, as it goes over the wire.
fn flight(session: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// A client that speaks TLS 1.3.
struct Tls(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Tls {
    fn connect(address: SocketAddr, authority: &Authority, certificate: Option<&Pair>) -> Self {
        Self::over(session(authority, certificate), socket(address))
    }

    fn over(session: ClientConnection, socket: TcpStream) -> Self {
        Self(BufReader::new(StreamOwned::new(session, socket)))
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes)?;
        self.0.get_mut().flush()
    }

    fn try_get(&mut self, path: &str, token: &str) -> std::io::Result<Response> {
        self.send(request("GET", path, token, "", "").as_bytes())?;
        self.try_read()
    }

    fn get(&mut self, path: &str, token: &str) -> Response {
        self.try_get(path, token).unwrap()
    }

    fn try_read(&mut self) -> std::io::Result<Response> {
        read_response(&mut self.0, false)
    }

    fn read(&mut self) -> Response {
        self.try_read().unwrap()
    }

    /// Says something of a process.
    fn report(&mut self, verb: &str, process: &str, token: &str, body: &Value) {
        let fields =
            format!("X-Sentinel-Process-Id: {process}\r\nContent-Type: application/json\r\n");
        let path = format!("/internal/{verb}");
        self.send(request("POST", &path, token, &fields, &body.to_string()).as_bytes()).unwrap();
        self.read().expect(202);
    }

    /// What `bytes` are once they are sealed. They are not sent.
    fn sealed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let session = &mut self.0.get_mut().conn;
        session.writer().write_all(bytes).unwrap();
        flight(session)
    }

    fn socket(&self) -> &TcpStream {
        &self.0.get_ref().sock
    }

    /// Ends our side without a word of TLS.
    fn half_close(&self) {
        self.socket().shutdown(Shutdown::Write).unwrap();
    }

    fn reset(self) {
        reset(self.0.into_inner().sock);
    }

    /// The certificate that the service has shown.
    fn shown(&self) -> Vec<u8> {
        self.0.get_ref().conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// What still comes, and whether it ended with a `close_notify`.
    fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => (bytes, true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the connection does not end")
            }
            Err(_) => (bytes, false),
        }
    }
}

fn request(method: &str, path: &str, token: &str, fields: &str, body: &str) -> String {
    let token =
        if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}{fields}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// What the socket still gives, to its end.
fn rest(mut socket: TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    Ok(bytes)
}
