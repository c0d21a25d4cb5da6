//! The whole service as a program for measurements: as it is, or with storage switched off.
//!
//! `scripts/bench` runs it twice side by side and drives both with `sentinel load`, so that the cost of durability
//! shows as a ratio. Storage off means that the intake thread answers every posting at once and writes nothing;
//! everything before and after it is the same code.
//!
//! `serve provider` is an identity provider for services that speak TLS, which development tokens rule out: it serves
//! one key, and the second line that it prints is a token signed with it.
//!
//! This module is no benchmark by itself: it prints where it listens and serves until its input closes.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use sentinel::config::{Config, Overrides};
use sentinel::domain::event::{Envelope, Receipt, Verdict};
use sentinel::domain::time::Timestamp;
use sentinel::http::auth::unix_seconds;
use sentinel::service::{Parts, Service, wall_clock};
use sentinel::store::{self, IntakeSession};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Numbers events and forgets them.
#[derive(Default)]
struct StorageOff {
    numbers: HashMap<sentinel::domain::ids::StreamKey, u64>,
}

impl IntakeSession for StorageOff {
    fn accept(&mut self, now: Timestamp, batch: Vec<Envelope>) -> store::Result<Vec<Verdict>> {
        let receipt = |envelope: Envelope| {
            let number = self.numbers.entry(envelope.stream.clone()).or_default();
            *number += 1;
            Verdict::Accepted(Receipt {
                event_id: envelope.event_id,
                stream: envelope.stream,
                stream_seq: *number,
                received_at: now,
            })
        };
        Ok(batch.into_iter().map(receipt).collect())
    }
}

/// How long the token of the provider is good for.
const TOKEN_TTL_S: u64 = 12 * 3600;

/// Serves one key and prints a token that it has signed.
fn provide() -> anyhow::Result<()> {
    let unspecified = |_: ring::error::Unspecified| anyhow::anyhow!("no key can be made");
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(unspecified)?;
    let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random)
        .map_err(|error| anyhow::anyhow!("no key can be made: {error}"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    // A point on the curve that is not compressed: a 4, and 32 bytes for each of x and y (SEC 1, 2.3.3).
    let point = key.public_key().as_ref();
    let keys = serde_json::json!({"keys": [{
        "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "bench",
        "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..65]),
    }]})
    .to_string();
    let now = unix_seconds();
    let claims = serde_json::json!({
        "iss": format!("http://{address}"), "aud": "clm-service", "sub": "bench", "tenant_id": "bench",
        "iat": now, "exp": now + TOKEN_TTL_S, "roles": ["sentinel:operate"],
    })
    .to_string();
    let header = BASE64.encode(r#"{"alg":"ES256","typ":"JWT","kid":"bench"}"#);
    let signed = format!("{header}.{}", BASE64.encode(claims));
    let signature = key.sign(&random, signed.as_bytes()).map_err(unspecified)?;
    // Whoever sees the lines finds both.
    writeln!(std::io::stdout(), "{address}\n{signed}.{}", BASE64.encode(signature))?;
    let answer = move |mut socket: TcpStream| -> std::io::Result<()> {
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let _ = socket.read(&mut [0; 4096])?;
        let length = keys.len();
        write!(
            socket,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{keys}"
        )
    };
    std::thread::Builder::new().spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            // A service that did not get its answer asks again.
            let _ = answer(socket);
        }
    })?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    if std::env::args().any(|word| word == "provider") {
        return provide();
    }
    // Cargo passes `--bench`; only our own words count.
    let storage_off = std::env::args().any(|word| word == "storage-off");
    let overrides = Overrides { database: None, bind: Some("tcp://127.0.0.1:0".to_owned()) };
    let (config, _) =
        Config::from_environment(overrides).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let service = if storage_off {
        Service::start_with_intake(&config, wall_clock(), Parts::ALL, Box::<StorageOff>::default())?
    } else {
        Service::start(&config, wall_clock(), Parts::ALL)?
    };
    writeln!(std::io::stdout(), "{}", service.api_address())?;
    let mut until_closed = Vec::new();
    std::io::stdin().read_to_end(&mut until_closed)?;
    service.stop()
}
