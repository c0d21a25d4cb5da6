//! An identity provider of two documents. This module serves a discovery document and a key set on loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// Answers until it is dropped.
pub(super) struct Provider {
    pub(super) issuer: String,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Provider {
    /// A provider with so many keys that can be used.
    pub(super) fn start(keys: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let stopping: Arc<AtomicBool> = Arc::default();
        let told = Arc::clone(&stopping);
        let discovery = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}).to_string();
        let keys: Vec<_> = (0..keys)
            .map(|number| {
                let key = rcgen::KeyPair::generate().unwrap();
                // A point that is not compressed: a byte, then x and y.
                let (x, y) = key.public_key_raw()[1..].split_at(32);
                let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
                json!({"kid": number.to_string(), "kty": "EC", "alg": "ES256", "crv": "P-256", "x": x, "y": y})
            })
            .collect();
        let keys = json!({ "keys": keys }).to_string();
        let body = move || {
            for stream in listener.incoming() {
                if told.load(Ordering::SeqCst) {
                    return;
                }
                // A caller that goes away is its own business.
                let _ = stream.and_then(|stream| answer(&stream, &discovery, &keys));
            }
        };
        let thread = std::thread::Builder::new().spawn(body).expect("a thread starts");
        Self { issuer, stopping, thread: Some(thread) }
    }
}

fn answer(mut stream: &TcpStream, discovery: &str, keys: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let body = if first.starts_with("GET /keys ") { keys } else { discovery };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.issuer.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
