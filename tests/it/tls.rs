//! Who gets in over TLS, with which certificate, and what stays true over it. This module makes its own authorities
//! and raw TLS clients.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::PrivateKeyDer;
use sentinel::certificates::thumbprint;
use sentinel::http::handshakes::Fault;
use sentinel::routes::table::{ROUTES, Scope};
use sentinel::service::{Parts, wall_clock};
use serde_json::{Value, json};

use crate::harness::{InProcess, PATIENCE, Response, eventually, read_response};
use crate::issuer::Issuer;

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

    fn sign(&self, name: &str) -> (Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec!["localhost".to_string()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.certificate, &self.key).unwrap(), key)
    }

    /// Writes a certificate of this authority and its key where a service reads them.
    fn write(&self, folder: &Path, name: &str) {
        let (certificate, key) = self.sign(name);
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    }
}

/// A service over TLS with everything around it.
struct World {
    folder: tempfile::TempDir,
    authority: Authority,
    clients: Authority,
    issuer: Issuer,
    service: InProcess,
}

impl World {
    fn start(client_auth: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (authority, clients, issuer) = (Authority::new(), Authority::new(), Issuer::start());
        authority.write(folder.path(), "first");
        std::fs::write(folder.path().join("ca.pem"), clients.certificate.pem()).unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (uri, keys) = (issuer.uri(), issuer.jwk_set_uri());
        let (certificate, key, ca) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
        let metrics_port = free_port().to_string();
        let service = InProcess::start(
            &folder.path().join("data"),
            wall_clock(),
            Parts::ALL,
            &[
                ("OAUTH2_ISSUER_URI", &uri),
                ("OAUTH2_JWK_SET_URI", &keys),
                ("SENTINEL_TLS_CERT_FILE", &certificate),
                ("SENTINEL_TLS_KEY_FILE", &key),
                ("SENTINEL_TLS_CLIENT_CA_FILE", &ca),
                ("SENTINEL_TLS_CLIENT_AUTH", client_auth),
                ("PROMETHEUS_METRICS_PORT", &metrics_port),
            ],
        );
        let world = Self { folder, authority, clients, issuer, service };
        if client_auth != "required" {
            let token = world.issuer.token(json!({}));
            // The keys of the provider come a moment after the start.
            eventually("the keys are there", || {
                (world.connect(None).get("/processes", &token).status == 200).then_some(())
            });
        }
        world
    }

    fn api(&self) -> SocketAddr {
        self.service.service.api_address()
    }

    fn client(&self) -> (Certificate, KeyPair) {
        self.clients.sign("billing")
    }

    fn connect(&self, certificate: Option<&(Certificate, KeyPair)>) -> Tls {
        Tls::connect(self.api(), &self.authority, certificate)
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A client that speaks TLS 1.3.
struct Tls(BufReader<StreamOwned<ClientConnection, TcpStream>>);

impl Tls {
    fn connect(
        address: SocketAddr,
        authority: &Authority,
        certificate: Option<&(Certificate, KeyPair)>,
    ) -> Self {
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
        let session =
            ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self(BufReader::new(StreamOwned::new(session, socket)))
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes)?;
        self.0.get_mut().flush()
    }

    fn try_get(&mut self, path: &str, token: &str) -> std::io::Result<Response> {
        self.send(request("GET", path, token, "", "").as_bytes())?;
        read_response(&mut self.0, false)
    }

    fn get(&mut self, path: &str, token: &str) -> Response {
        self.try_get(path, token).unwrap()
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
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn each_route_wants_the_certificate_and_the_token_that_the_table_says() {
    let world = World::start("optional");
    let (known, token) = (world.client(), world.issuer.token(json!({})));
    let document = world.connect(None).get("/openapi.json", "").expect(200).json();
    assert_eq!(document["components"]["securitySchemes"]["mutualTLS"]["type"], "mutualTLS");
    for route in ROUTES {
        let method = route.method.as_str().to_ascii_lowercase();
        let security = &document["paths"][route.path][&method]["security"][0];
        for shown in [None, Some(&known)] {
            for token in ["", token.as_str()] {
                let path: Vec<&str> = route
                    .path
                    .split('/')
                    .map(|s| if s.starts_with('{') { "x" } else { s })
                    .collect();
                let path = path.join("/");
                let mut tls = world.connect(shown);
                tls.send(request(route.method.as_str(), &path, token, "", "").as_bytes()).unwrap();
                let response = read_response(&mut tls.0, false).unwrap();
                let of_certificate = response.status == 403
                    && response.json()["type"] == "/problems/client-certificate-required";
                let case =
                    format!("{} {path} {} {}", route.method, shown.is_some(), !token.is_empty());
                let documented = (security["mutualTLS"].is_array(), security["bearer"].is_array());
                assert_eq!(documented.0, route.certificate, "{case}: {security}");
                assert_eq!(
                    of_certificate,
                    route.certificate && shown.is_none(),
                    "{case}: {}",
                    response.text()
                );
                let wants_token = match route.scope {
                    Scope::Open | Scope::Scrape => false,
                    Scope::Read | Scope::Write | Scope::Operate => true,
                };
                assert_eq!(documented.1, wants_token, "{case}: {security}");
                let refused = !of_certificate && wants_token && token.is_empty();
                assert_eq!(response.status == 401, refused, "{case}: {}", response.text());
            }
        }
    }
    world.service.stop();
}

#[test]
fn a_certificate_that_is_required_is_required_and_a_foreign_one_never_gets_in() {
    for client_auth in ["optional", "required"] {
        let world = World::start(client_auth);
        let foreign = Authority::new().sign("billing");
        world.connect(Some(&foreign)).try_get("/health", "").unwrap_err();
        world.connect(Some(&world.client())).get("/health", "").expect(200);
        let without = world.connect(None).try_get("/health", "");
        assert_eq!(without.is_ok(), client_auth == "optional");
        world.service.stop();
    }
}

#[test]
fn the_metrics_port_wants_a_certificate_and_no_token() {
    let world = World::start("off");
    let address = world.service.service.metrics_address().unwrap();
    let known = world.client();
    let metrics = Tls::connect(address, &world.authority, Some(&known)).get("/metrics", "");
    assert!(metrics.expect(200).text().contains("sentinel_"));
    Tls::connect(address, &world.authority, None).try_get("/metrics", "").unwrap_err();
    // The API does not ask: its routes go by tokens alone.
    world.connect(None).get("/metrics", "").expect(401);
    world.connect(None).get("/metrics", &world.issuer.token(json!({}))).expect(200);
    world.service.stop();
}

#[test]
fn a_bound_token_is_taken_from_the_holder_of_its_certificate_only() {
    let world = World::start("optional");
    let (own, other) = (world.client(), world.client());
    let digest = BASE64.encode(thumbprint(own.0.der()));
    let bound = world.issuer.token(json!({"cnf": {"x5t#S256": digest}}));
    // Twice, because the second time the token is remembered.
    for _ in 0..2 {
        world.connect(Some(&own)).get("/processes", &bound).expect(200);
        world.connect(Some(&other)).get("/processes", &bound).expect(401);
        world.connect(None).get("/processes", &bound).expect(401);
    }
    let broken = world.issuer.token(json!({"cnf": {"x5t#S256": "x"}}));
    world.connect(Some(&own)).get("/processes", &broken).expect(401);
    world.service.stop();
}

#[test]
fn what_is_no_tls_1_3_is_closed_cleanly() {
    let world = World::start("optional");
    let mut socket = TcpStream::connect(world.api()).unwrap();
    socket.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let answer = rest(socket).unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert, and not a word of HTTP: {answer:?}");
    // A hello of TLS 1.2: no supported_versions, one cipher suite of 1.2.
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions: &[u8] = &[0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3];
    hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(&hello);
    let mut socket = TcpStream::connect(world.api()).unwrap();
    socket.write_all(&record).unwrap();
    // protocol_version is alert 70.
    assert_eq!(rest(socket).unwrap(), [21, 3, 3, 0, 2, 2, 70]);
    world.service.stop();
}

/// How many handshakes have come to nothing for each reason, as the metrics say it.
fn failures(world: &World) -> BTreeMap<String, u64> {
    let text = world.connect(Some(&world.client())).get("/metrics", "").expect(200).text();
    let series = "sentinel_tls_handshake_errors_total{reason=\"";
    text.lines()
        .filter_map(|line| line.strip_prefix(series)?.split_once("\"} "))
        .map(|(reason, count)| (reason.to_owned(), count.parse().unwrap()))
        .collect()
}

#[test]
fn a_handshake_that_comes_to_nothing_is_counted_by_its_reason() {
    let world = World::start("required");
    let none: BTreeMap<String, u64> =
        Fault::ALL.iter().map(|fault| (fault.as_str().to_owned(), 0)).collect();
    assert_eq!(failures(&world), none, "each is there before the first");
    let mut expected = none;
    let mut counts = |reason: &str, cause: &dyn Fn()| {
        cause();
        *expected.get_mut(reason).unwrap() += 1;
        eventually(reason, || (failures(&world) == expected).then_some(()));
    };
    counts("no_certificate", &|| {
        world.connect(None).try_get("/health", "").unwrap_err();
    });
    let foreign = Authority::called("somebody else").sign("billing");
    counts("unknown_issuer", &|| {
        world.connect(Some(&foreign)).try_get("/health", "").unwrap_err();
    });
    let mut params = CertificateParams::new(vec!["localhost".to_string()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = KeyPair::generate().unwrap();
    let expired = params.signed_by(&key, &world.clients.certificate, &world.clients.key).unwrap();
    let expired = (expired, key);
    counts("bad_certificate", &|| {
        world.connect(Some(&expired)).try_get("/health", "").unwrap_err();
    });
    counts("alert", &|| {
        let stranger = Authority::new();
        Tls::connect(world.api(), &stranger, None).try_get("/health", "").unwrap_err();
    });
    counts("protocol", &|| {
        let mut socket = TcpStream::connect(world.api()).unwrap();
        socket.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        rest(socket).unwrap();
    });
    counts("closed", &|| drop(TcpStream::connect(world.api()).unwrap()));
    let silent = TcpStream::connect(world.api()).unwrap();
    // The handshake has five seconds.
    counts("timeout", &|| assert_eq!(rest(silent.try_clone().unwrap()).unwrap_or_default(), b""));
    // What breaks later is no handshake.
    let mut open = world.connect(Some(&world.client()));
    open.get("/health", "").expect(200);
    open.0.get_mut().sock.write_all(b"garbage behind the handshake\r\n\r\n").unwrap();
    rest(open.0.get_ref().sock.try_clone().unwrap()).unwrap_or_default();
    eventually("nothing else is counted", || (failures(&world) == expected).then_some(()));
    world.service.stop();
}

#[test]
fn a_dripping_handshake_is_cut_off_and_holds_nobody_up() {
    let world = World::start("optional");
    let mut dripping = TcpStream::connect(world.api()).unwrap();
    let silent = TcpStream::connect(world.api()).unwrap();
    let begun = Instant::now();
    world.connect(None).get("/health", "").expect(200);
    dripping.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    dripping.write_all(&[22, 3, 1, 1, 0, 1]).unwrap();
    let cut = loop {
        // One more byte of a long hello each time nothing comes.
        let gone = dripping.write_all(&[0]).is_err();
        match dripping.read(&mut [0; 64]) {
            Err(error) if !gone && error.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(begun.elapsed() < PATIENCE, "it is still there");
            }
            _ => break begun.elapsed(),
        }
    };
    assert!((Duration::from_secs(4)..Duration::from_secs(30)).contains(&cut), "{cut:?}");
    assert_eq!(rest(silent).unwrap_or_default(), b"");
    world.connect(None).get("/health", "").expect(200);
    world.service.stop();
}

#[test]
fn new_files_are_shown_to_new_connections_and_broken_ones_change_nothing() {
    let world = World::start("optional");
    let mut open = world.connect(None);
    let subject = |tls: &Tls| tls.0.get_ref().conn.peer_certificates().unwrap()[0].to_vec();
    open.get("/health", "").expect(200);
    let first = subject(&open);
    world.authority.write(world.folder.path(), "second");
    world.service.service.look_at_certificates();
    let mut new = world.connect(None);
    new.get("/health", "").expect(200);
    let second = subject(&new);
    assert_ne!(first, second);
    open.get("/health", "").expect(200);
    std::fs::write(world.folder.path().join("key.pem"), "no key").unwrap();
    world.service.service.reload_certificates();
    let mut newer = world.connect(None);
    newer.get("/health", "").expect(200);
    assert_eq!(subject(&newer), second);
    for tls in [&mut open, &mut new] {
        tls.get("/health", "").expect(200);
    }
    world.service.stop();
}

#[test]
fn a_request_split_at_every_byte_and_many_at_once_are_answered_in_order() {
    let world = World::start("optional");
    let token = world.issuer.token(json!({}));
    let whole = request("GET", "/status/nobody", &token, "", "");
    let mut tls = world.connect(None);
    for at in 1..whole.len() {
        tls.send(&whole.as_bytes()[..at]).unwrap();
        tls.send(&whole.as_bytes()[at..]).unwrap();
        read_response(&mut tls.0, false).unwrap().expect(404);
    }
    let pipeline = format!("{whole}{}", request("GET", "/health", "", "", "")).repeat(200);
    tls.send(pipeline.as_bytes()).unwrap();
    for _ in 0..200 {
        read_response(&mut tls.0, false).unwrap().expect(404);
        read_response(&mut tls.0, false).unwrap().expect(200);
    }
    world.service.stop();
}

#[test]
fn many_log_rows_stream_out_whole_and_the_connection_ends_with_a_close_notify() {
    let world = World::start("optional");
    let token = world.issuer.token(json!({}));
    let mut tls = world.connect(Some(&world.client()));
    let fields = "X-Sentinel-Process-Id: p\r\nContent-Type: application/json\r\n";
    let rows: Vec<Value> =
        (0..5000).map(|n| json!({"message": format!("{n} {}", "x".repeat(200))})).collect();
    let body = Value::from(rows).to_string();
    tls.send(request("POST", "/internal/log", &token, fields, &body).as_bytes()).unwrap();
    read_response(&mut tls.0, false).unwrap().expect(202);
    let ndjson = request("GET", "/logs/p", &token, "Accept: application/x-ndjson\r\n", "");
    eventually("all rows are there", || {
        tls.send(ndjson.as_bytes()).unwrap();
        let text = read_response(&mut tls.0, false).unwrap().text();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("xxx")).collect();
        (lines.len() == 5000).then_some(())
    });
    tls.send(request("GET", "/health", "", "Connection: close\r\n", "").as_bytes()).unwrap();
    read_response(&mut tls.0, false).unwrap().expect(200);
    // Without a close_notify this is an error, not an end.
    assert_eq!(tls.0.read(&mut [0; 1]).unwrap(), 0);
    world.service.stop();
}
