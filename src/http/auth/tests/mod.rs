//! Tests of the door. This module holds what they share: keys that sign anything, and a provider that follows a
//! script.

mod forgeries;
mod freshness;
mod network;
mod own_key;

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://id.example.com/realms/main";
const SOON: Duration = Duration::from_secs(10);
/// A key pair that is public and protects nothing.
const TEST_ONLY_RSA: &[u8] =
    include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/test-only-rsa-2048.pk8"));

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

/// A key of the provider's, with which tests sign whatever they like.
struct TestKey {
    kid: &'static str,
    pair: Pair,
}

impl TestKey {
    fn rsa(kid: &'static str) -> Self {
        Self { kid, pair: Pair::Rsa(RsaKeyPair::from_pkcs8(TEST_ONLY_RSA).unwrap()) }
    }

    fn ec(kid: &'static str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
        Self { kid, pair: Pair::Ec(pair) }
    }

    fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_) => "ES256",
        }
    }

    fn jwk(&self) -> Value {
        let kid = self.kid;
        match &self.pair {
            Pair::Rsa(pair) => {
                let PublicKeyComponents { n, e }: PublicKeyComponents<Vec<u8>> =
                    pair.public().into();
                let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
                json!({"kid": kid, "kty": "RSA", "alg": "RS256", "use": "sig", "n": n, "e": e})
            }
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                json!({"kid": kid, "kty": "EC", "alg": "ES256", "use": "sig", "crv": "P-256", "x": x, "y": y})
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signed = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signed).unwrap();
                signed
            }
            Pair::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
        }
    }

    /// `Bearer` and a token with this head and these claims, truly signed.
    fn token_with_head(&self, head: &Value, claims: &Value) -> String {
        compact(head, claims, |message| self.sign(message))
    }

    fn token(&self, claims: &Value) -> String {
        self.token_with_head(
            &json!({"alg": self.algorithm(), "kid": self.kid, "typ": "JWT"}),
            claims,
        )
    }
}

fn compact(head: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(head), part(claims));
    let signed = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("Bearer {message}.{signed}")
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": ["account", "clm-service"], "sub": "alice", "iat": NOW - 10, "exp": NOW + 3600,
        "tenant_id": "contoso", "realm_access": {"roles": ["sentinel:write"]},
    })
}

fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn claims_without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn key_set(keys: &[&TestKey]) -> Vec<u8> {
    let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

fn expected() -> Expectations {
    Expectations { issuer: ISSUER.to_string(), audience: vec!["clm-service".to_string()] }
}

/// A provider that gives each of these answers once and then the last one again and again.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Answers>>);

#[derive(Default)]
struct Answers {
    to_come: VecDeque<Result<Vec<u8>, String>>,
    fetches: usize,
}

impl Script {
    fn then(self, answer: Result<Vec<u8>, &str>) -> Self {
        self.0.lock().to_come.push_back(answer.map_err(String::from));
        self
    }

    fn fetches(&self) -> usize {
        self.0.lock().fetches
    }
}

impl KeySource for Script {
    fn fetch(&self) -> anyhow::Result<Vec<u8>> {
        let mut answers = self.0.lock();
        answers.fetches += 1;
        let answer = match answers.to_come.len() {
            0 | 1 => answers.to_come.front().cloned(),
            _ => answers.to_come.pop_front(),
        };
        answer.unwrap().map_err(anyhow::Error::msg)
    }
}

fn door(script: &Script) -> (Arc<Authenticator>, Refresher) {
    Authenticator::fed_by(Box::new(script.clone()), expected(), DefaultRole::Read)
}

/// A door with these keys.
fn door_with(keys: &[&TestKey]) -> Arc<Authenticator> {
    let (door, refresher) = door(&Script::default().then(Ok(key_set(keys))));
    refresher.pass(NOW - 100);
    door
}

fn reason(door: &Authenticator, authorization: &str) -> &'static str {
    match door.check(Some(authorization), NOW) {
        Err(AuthError::Invalid(reason)) => reason,
        // An unknown key; whether it is fetched anew is not the question.
        Err(AuthError::Retry) => "unknown key",
        other => panic!("{other:?}"),
    }
}
