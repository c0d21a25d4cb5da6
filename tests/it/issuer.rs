//! An identity provider that only serves its keys, and signs whatever a test claims. This module is for tests of what a
//! token opens; what a real provider does is in `identity_provider`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use sentinel::http::auth::unix_seconds;
use serde_json::{Value, json};

/// Serves one key set over loopback, for as long as somebody asks, and signs with its key.
pub(crate) struct Issuer {
    address: SocketAddr,
    key: EcdsaKeyPair,
}

impl Issuer {
    pub(crate) fn start() -> Self {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random)
                .unwrap();
        let point = key.public_key().as_ref();
        let keys = json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "k",
            "x": BASE64.encode(&point[1..33]), "y": BASE64.encode(&point[33..65]),
        }]})
        .to_string();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let serve = move || {
            for socket in listener.incoming() {
                let Ok(mut socket) = socket else { return };
                let _ = socket.read(&mut [0; 4096]);
                let _ = write!(
                    socket,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{keys}",
                    keys.len()
                );
            }
        };
        std::thread::Builder::new().spawn(serve).unwrap();
        Self { address, key }
    }

    /// `OAUTH2_ISSUER_URI`.
    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `OAUTH2_JWK_SET_URI`.
    pub(crate) fn jwk_set_uri(&self) -> String {
        format!("{}/keys", self.uri())
    }

    /// A token that opens everything to the tenant `demo` for an hour, with further or other claims.
    pub(crate) fn token(&self, more: Value) -> String {
        let now = unix_seconds();
        let mut claims = json!({
            "iss": self.uri(), "aud": "clm-service", "sub": "tester", "tenant_id": "demo",
            "iat": now, "exp": now + 3600, "roles": ["sentinel:operate"],
        });
        claims.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let header = BASE64.encode(r#"{"alg":"ES256","typ":"JWT","kid":"k"}"#);
        let signed = format!("{header}.{}", BASE64.encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64.encode(signature))
    }
}
