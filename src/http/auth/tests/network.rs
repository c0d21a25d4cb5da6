//! The provider over a real socket. This module holds one that answers badly on purpose.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use rustls::version::{TLS12, TLS13};

use super::*;
use crate::config::{Provider, WebAddress};

/// Status and body by path.
type Pages = BTreeMap<String, (u16, Vec<u8>)>;

/// A provider on loopback that counts what it is asked.
struct TestProvider {
    address: SocketAddr,
    pages: Arc<Mutex<Pages>>,
    requests: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl TestProvider {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let pages: Arc<Mutex<Pages>> = Arc::default();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let (served, asked) = (Arc::clone(&pages), Arc::clone(&requests));
        let body = move || {
            for stream in listener.incoming() {
                if answer(stream.unwrap(), &served, &asked).is_none() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().spawn(body).unwrap();
        Self { address, pages, requests, thread: Some(thread) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn page(&self, path: &str, status: u16, body: impl Into<Vec<u8>>) {
        self.pages.lock().insert(path.to_string(), (status, body.into()));
    }

    fn provider(&self) -> Provider {
        let issuer = self.url("/realm");
        let document = json!({"issuer": issuer, "jwks_uri": self.url("/keys")}).to_string();
        self.page("/realm/.well-known/openid-configuration", 200, document);
        Provider {
            issuer: WebAddress::parse(&issuer).unwrap(),
            jwk_set: None,
            audience: vec!["clm-service".to_string()],
            ca_file: None,
        }
    }
}

impl Drop for TestProvider {
    fn drop(&mut self) {
        // A connection without a request ends the thread.
        drop(TcpStream::connect(self.address));
        let _ = self.thread.take().unwrap().join();
    }
}

/// Answers one request and notes its path, in the other order; None when nothing was asked.
fn answer(
    mut stream: impl Read + Write,
    pages: &Mutex<Pages>,
    requests: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_string();
    requests.lock().push(path.clone());
    let (status, body) = pages.lock().get(&path).cloned().unwrap_or((404, Vec::new()));
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    // The client may hang up on a body that is too long for it.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    Some(())
}

#[test]
fn keys_are_found_by_discovery() {
    let server = TestProvider::start();
    let key = TestKey::ec("ec");
    server.page("/keys", 200, key_set(&[&key]));
    let source = WebSource::new(&server.provider()).unwrap();
    assert_eq!(source.fetch().unwrap(), key_set(&[&key]));
    assert_eq!(*server.requests.lock(), ["/realm/.well-known/openid-configuration", "/keys"]);
}

#[test]
fn a_redirect_an_error_and_an_endless_answer_are_no_key_set() {
    let server = TestProvider::start();
    server.page("/elsewhere", 200, key_set(&[&TestKey::ec("ec")]));
    let source = WebSource::new(&server.provider()).unwrap();
    for (status, body, why) in [
        (302, Vec::new(), "answers 302"),
        (404, Vec::new(), "answers 404"),
        (500, Vec::new(), "answers 500"),
        (200, vec![b' '; 1024 * 1024 + 1], "1048576 bytes"),
    ] {
        server.page("/keys", status, body);
        let error = format!("{:#}", source.fetch().unwrap_err());
        assert!(error.contains(why), "{error}");
    }
    assert!(!server.requests.lock().contains(&"/elsewhere".to_string()));
}

#[test]
fn a_key_set_that_is_set_explicitly_needs_no_discovery() {
    let server = TestProvider::start();
    server.page("/other", 200, "x");
    let jwk_set = Some(WebAddress::parse(&server.url("/other")).unwrap());
    let source = WebSource::new(&Provider { jwk_set, ..server.provider() }).unwrap();
    assert_eq!(source.fetch().unwrap(), b"x");
    assert_eq!(*server.requests.lock(), ["/other"]);
}

#[test]
fn a_just_rotated_key_is_fetched_once_while_callers_wait() {
    let server = TestProvider::start();
    let provider = server.provider();
    let (old, new) = (TestKey::ec("old"), TestKey::ec("new"));
    server.page("/keys", 200, key_set(&[&old]));
    let expected =
        Expectations { issuer: server.url("/realm"), audience: vec!["clm-service".to_string()] };
    let source = Box::new(WebSource::new(&provider).unwrap());
    let (door, refresher) = Authenticator::fed_by(source, expected, DefaultRole::Read);
    let (ended, _ended) = crossbeam::channel::unbounded();
    let mut component = refresher.start(ended).unwrap();

    // The thread reads the clock, so this test does too.
    let now = unix_seconds();
    let token = |key: &TestKey, id: u64| {
        let mut claims = claims();
        claims["iss"] = json!(server.url("/realm"));
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + 3600);
        claims["jti"] = json!(id);
        key.token(&claims)
    };
    door.check_waiting(Some(&token(&old, 0)), None, now, SOON).unwrap();
    server.page("/keys", 200, key_set(&[&old, &new]));
    let later = now + 60;
    assert_eq!(door.check(Some(&token(&new, 1)), later), Err(AuthError::Retry));
    door.check_waiting(Some(&token(&new, 1)), None, later, SOON).unwrap();
    for id in 2..50 {
        door.check(Some(&token(&new, id)), later).unwrap();
    }
    assert_eq!(server.requests.lock().iter().filter(|path| *path == "/keys").count(), 2);
    let end = component.join_by(Instant::now() + SOON);
    assert!(matches!(end, crate::component::End::Clean), "{end:?}");
}

/// Serves `body` to so many callers, one after the other, over this version of TLS, with a certificate for localhost that `ca_pem` vouches for.
fn serve_over_tls(
    body: Vec<u8>,
    version: &'static rustls::SupportedProtocolVersion,
    callers: usize,
) -> (SocketAddr, String, JoinHandle<()>) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    let ca_pem = certified.cert.pem();
    let key =
        rustls_pki_types::PrivateKeyDer::try_from(certified.key_pair.serialize_der()).unwrap();
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(ring)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::new(config);
    let serve = move || {
        let pages = Mutex::new(BTreeMap::from([("/keys".to_string(), (200, body))]));
        for _ in 0..callers {
            let (stream, _) = listener.accept().unwrap();
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let stream = rustls::StreamOwned::new(connection, stream);
            // A caller who does not trust us hangs up: then nothing was asked.
            let _ = answer(stream, &pages, &Mutex::default());
        }
    };
    (address, ca_pem, std::thread::Builder::new().spawn(serve).unwrap())
}

#[test]
fn a_private_ca_is_trusted_when_it_is_named_and_nobody_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let (address, ca_pem, thread) = serve_over_tls(b"keys".to_vec(), &TLS13, 1);
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, ca_pem).unwrap();
    let provider = |address: SocketAddr, ca_file| Provider {
        issuer: WebAddress::parse(ISSUER).unwrap(),
        jwk_set: Some(
            WebAddress::parse(&format!("https://localhost:{}/keys", address.port())).unwrap(),
        ),
        audience: vec!["clm-service".to_string()],
        ca_file,
    };
    let source = WebSource::new(&provider(address, Some(ca_file.clone()))).unwrap();
    assert_eq!(source.fetch().unwrap(), b"keys");
    thread.join().unwrap();

    for ca_file in [None, Some(ca_file)] {
        let (address, _other_ca, thread) = serve_over_tls(b"keys".to_vec(), &TLS13, 1);
        let error = WebSource::new(&provider(address, ca_file)).unwrap().fetch().unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("certificate"), "{text}");
        thread.join().unwrap();
    }
}

#[test]
fn a_renewed_ca_counts_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    let old = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    std::fs::write(&ca_file, old.cert.pem()).unwrap();
    let (address, ca_pem, thread) = serve_over_tls(b"keys".to_vec(), &TLS13, 2);
    let keys = format!("https://localhost:{}/keys", address.port());
    let source = WebSource::new(&Provider {
        issuer: WebAddress::parse(ISSUER).unwrap(),
        jwk_set: Some(WebAddress::parse(&keys).unwrap()),
        audience: vec!["clm-service".to_string()],
        ca_file: Some(ca_file.clone()),
    })
    .unwrap();
    let error = format!("{:#}", source.fetch().unwrap_err());
    assert!(error.contains("certificate"), "{error}");
    std::fs::write(&ca_file, [old.cert.pem(), ca_pem].concat()).unwrap();
    assert_eq!(source.fetch().unwrap(), b"keys");
    thread.join().unwrap();
}

/// What our clients offer in their first message, by the IANA numbers of the cipher suites.
fn suites_offered(call: impl FnOnce(SocketAddr)) -> Vec<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let listen = move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut acceptor = rustls::server::Acceptor::default();
        loop {
            acceptor.read_tls(&mut stream).unwrap();
            if let Some(accepted) = acceptor.accept().map_err(|(error, _)| error).unwrap() {
                let hello = accepted.client_hello();
                return hello.cipher_suites().iter().map(|suite| u16::from(*suite)).collect();
            }
        }
    };
    let thread = std::thread::Builder::new().spawn(listen).unwrap();
    call(address);
    thread.join().unwrap()
}

#[test]
fn whom_we_call_we_call_by_tls_1_3_and_nothing_older() {
    let provider = |address: SocketAddr, ca_file: Option<PathBuf>| {
        let keys = format!("https://localhost:{}/keys", address.port());
        WebSource::new(&Provider {
            issuer: WebAddress::parse(ISSUER).unwrap(),
            jwk_set: Some(WebAddress::parse(&keys).unwrap()),
            audience: vec!["clm-service".to_string()],
            ca_file,
        })
        .unwrap()
    };
    let offered = suites_offered(|address| {
        provider(address, None).fetch().unwrap_err();
    });
    assert!(!offered.is_empty());
    // 0x1301 to 0x1305 are the suites of 1.3, which 1.2 cannot use (RFC 8446, B.4).
    assert!(offered.iter().all(|suite| suite >> 8 == 0x13), "{offered:04x?}");

    let folder = tempfile::tempdir().unwrap();
    let (address, ca_pem, thread) = serve_over_tls(b"keys".to_vec(), &TLS12, 1);
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, ca_pem).unwrap();
    provider(address, Some(ca_file)).fetch().unwrap_err();
    thread.join().unwrap();
}
