//! The door under attack: one test for each forgery, and what happens while keys change or the provider is away.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use serde_json::{Value, json};

use super::*;
use crate::config::{Provider, Surroundings, WebAddress};
use crate::domain::ids::TenantId;

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
struct Script(Arc<Mutex<(VecDeque<Result<Vec<u8>, String>>, usize)>>);

impl Script {
    fn then(self, answer: Result<Vec<u8>, &str>) -> Self {
        self.0.lock().0.push_back(answer.map_err(String::from));
        self
    }

    fn fetches(&self) -> usize {
        self.0.lock().1
    }
}

impl KeySource for Script {
    fn fetch(&self) -> anyhow::Result<Vec<u8>> {
        let mut script = self.0.lock();
        script.1 += 1;
        let answer =
            if script.0.len() > 1 { script.0.pop_front() } else { script.0.front().cloned() };
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

#[test]
fn a_good_token_of_either_kind_is_let_in() {
    let (rsa, ec) = (TestKey::rsa("rsa"), TestKey::ec("ec"));
    let door = door_with(&[&rsa, &ec]);
    for key in [&rsa, &ec] {
        let principal = door.check(Some(&key.token(&claims())), NOW).unwrap();
        assert_eq!(principal.tenant().as_str(), "contoso");
        assert_eq!(principal.subject(), "alice");
        assert!(principal.may(Role::Write) && !principal.may(Role::Operate));
    }
    let lower_case = rsa.token(&claims()).replacen("Bearer ", "bearer ", 1);
    assert!(door.check(Some(&lower_case), NOW).is_ok());
}

#[test]
fn no_token_is_not_the_same_as_a_bad_one() {
    let door = door_with(&[&TestKey::ec("ec")]);
    assert_eq!(door.check(None, NOW), Err(AuthError::Missing));
    for bad in [
        "",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "Bearer a.b",
        "Bearer a.b.c.d",
        "Bearer a.b.ä",
        "Bearer ..",
        "Bearer a.b.c",
    ] {
        assert!(matches!(door.check(Some(bad), NOW), Err(AuthError::Invalid(_))), "{bad:?}");
    }
}

#[test]
fn an_unsigned_token_is_refused() {
    let key = TestKey::rsa("rsa");
    let door = door_with(&[&key]);
    for alg in ["none", "None", "NONE", ""] {
        let head = json!({"alg": alg, "kid": "rsa"});
        reason(&door, &compact(&head, &claims(), |_| Vec::new()));
        reason(&door, &key.token_with_head(&head, &claims()));
    }
    let truly = key.token(&claims());
    let (unsigned, _) = truly.rsplit_once('.').unwrap();
    assert_eq!(reason(&door, &format!("{unsigned}.")), "the signature is not that of the key");
}

#[test]
fn a_token_signed_with_the_public_key_as_a_secret_is_refused() {
    let key = TestKey::rsa("rsa");
    let door = door_with(&[&key]);
    let Pair::Rsa(pair) = &key.pair else { unreachable!() };
    let der = STANDARD.encode(pair.public().as_ref());
    let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{der}\n-----END RSA PUBLIC KEY-----\n");
    for alg in ["HS256", "RS256"] {
        let head = json!({"alg": alg, "kid": "rsa"});
        let forged = compact(&head, &claims(), |message| {
            let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, pem.as_bytes());
            ring::hmac::sign(&secret, message).as_ref().to_vec()
        });
        assert!(reason(&door, &forged).contains("not that of the key"), "{alg}");
    }
}

#[test]
fn the_key_fixes_the_algorithm_and_the_token_has_no_say() {
    let (rsa, ec) = (TestKey::rsa("rsa"), TestKey::ec("ec"));
    let door = door_with(&[&rsa, &ec]);
    for (head, signer) in [
        (json!({"alg": "RS256", "kid": "ec"}), &rsa),
        (json!({"alg": "ES256", "kid": "rsa"}), &ec),
        (json!({"alg": "RS512", "kid": "rsa"}), &rsa),
        (json!({"alg": "PS256", "kid": "rsa"}), &rsa),
        (json!({"alg": "ES384", "kid": "ec"}), &ec),
        (json!({"alg": "EdDSA", "kid": "ec"}), &ec),
        (json!({"alg": "RS256", "kid": "rsa"}), &ec),
        (json!({"alg": "ES256", "kid": "ec"}), &rsa),
    ] {
        let why = reason(&door, &signer.token_with_head(&head, &claims()));
        assert!(why.contains("not that of the key"), "{head}: {why}");
    }
}

#[test]
fn a_key_that_the_token_brings_along_counts_for_nothing() {
    let (ours, theirs) = (TestKey::ec("ours"), TestKey::ec("ours"));
    let door = door_with(&[&ours]);
    let head = json!({"alg": "ES256", "kid": "ours", "jwk": {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, "jku": "https://evil.example.com/keys"});
    assert_eq!(
        reason(&door, &theirs.token_with_head(&head, &claims())),
        "the signature is not that of the key"
    );
}

#[test]
fn an_encryption_key_verifies_nothing() {
    let key = TestKey::rsa("enc");
    let mut jwk = key.jwk();
    jwk["use"] = json!("enc");
    jwk["alg"] = json!("RSA-OAEP");
    let other = TestKey::ec("ec");
    let document = json!({"keys": [jwk, other.jwk()]}).to_string().into_bytes();
    let (door, refresher) = door(&Script::default().then(Ok(document)));
    refresher.pass(NOW - 5);
    assert_eq!(reason(&door, &key.token(&claims())), "no key has the token's kid");
}

#[test]
fn every_required_claim_is_required_and_must_fit() {
    let key = TestKey::ec("ec");
    let door = door_with(&[&key]);
    for (claims, why) in [
        (claims_without("exp"), "the claim exp is missing"),
        (claims_without("iat"), "the claim iat is missing"),
        (claims_without("iss"), "the claim iss is missing"),
        (claims_without("aud"), "the claim aud is missing"),
        (claims_without("tenant_id"), "the claim tenant_id is missing"),
        (claims_with("iss", json!("https://evil.example.com")), "the issuer is not ours"),
        (claims_with("iss", json!(format!("{ISSUER}/"))), "the issuer is not ours"),
        (claims_with("aud", json!("account")), "the audience is not us"),
        (claims_with("aud", json!([])), "the audience is not us"),
        (claims_with("aud", json!(7)), "the claim aud is missing"),
        (claims_with("exp", json!(NOW - 31)), "the token has expired"),
        (claims_with("exp", json!(NOW - 30)), "the token has expired"),
        (claims_with("exp", json!(-1)), "the claim exp is missing"),
        (claims_with("nbf", json!(NOW + 31)), "the token is not valid yet"),
        (claims_with("iat", json!(NOW + 31)), "the token was issued in the future"),
        (claims_with("exp", json!("tomorrow")), "the token is malformed"),
        (claims_with("nbf", json!("yesterday")), "the token is malformed"),
        (claims_with("tenant_id", json!("a/b")), "the claim tenant_id is not a tenant's name"),
        (
            claims_with("cnf", json!({"x5t#S256": "x"})),
            "the token is bound to a client certificate",
        ),
    ] {
        assert_eq!(reason(&door, &key.token(&claims)), why, "{claims}");
    }
}

#[test]
fn clocks_may_differ_by_half_a_minute() {
    let key = TestKey::ec("ec");
    let door = door_with(&[&key]);
    for claims in [
        claims_with("exp", json!(NOW - 29)),
        claims_with("nbf", json!(NOW + 30)),
        claims_with("iat", json!(NOW + 30)),
        claims_with("exp", json!(1_800_000_100.5)),
    ] {
        assert!(door.check(Some(&key.token(&claims)), NOW).is_ok(), "{claims}");
    }
}

#[test]
fn a_claim_that_stands_twice_is_refused() {
    let key = TestKey::ec("ec");
    let door = door_with(&[&key]);
    let twice = claims().to_string().replacen('{', r#"{"tenant_id":"fabrikam","#, 1);
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"ec"}"#);
    let message = format!("{head}.{}", URL_SAFE_NO_PAD.encode(twice));
    let signed = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()));
    assert_eq!(reason(&door, &format!("Bearer {message}.{signed}")), "the token is malformed");
}

#[test]
fn a_head_that_demands_an_extension_or_names_no_key_is_refused() {
    let key = TestKey::ec("ec");
    let door = door_with(&[&key]);
    let head = json!({"alg": "ES256", "kid": "ec", "crit": ["b64"], "b64": false});
    assert!(reason(&door, &key.token_with_head(&head, &claims())).contains("extension"));
    let head = json!({"alg": "ES256"});
    assert!(reason(&door, &key.token_with_head(&head, &claims())).contains("names no key"));
}

#[test]
fn an_overlong_token_is_refused_before_it_is_read() {
    let key = TestKey::ec("ec");
    let door = door_with(&[&key]);
    let long = key.token(&claims_with("padding", json!("x".repeat(9 * 1024))));
    assert_eq!(reason(&door, &long), "the token is longer than 8 KiB");
}

#[test]
fn a_token_is_verified_once_a_minute_and_never_after_its_end() {
    let key = TestKey::ec("ec");
    let door = door_with(&[&key]);
    let token = key.token(&claims_with("exp", json!(NOW + 30)));
    let first = door.check(Some(&token), NOW).unwrap();
    let second = door.check(Some(&token), NOW + 1).unwrap();
    assert!(Arc::ptr_eq(&first, &second), "the second one came out of the cache");
    let late = door.check(Some(&token), NOW + 45).unwrap();
    assert!(
        !Arc::ptr_eq(&first, &late),
        "past its end only the leeway lets it in, by the signature"
    );
    assert_eq!(
        door.check(Some(&token), NOW + 60),
        Err(AuthError::Invalid("the token has expired"))
    );
}

#[test]
fn a_refused_token_is_not_remembered() {
    let key = TestKey::ec("ec");
    let door = door_with(&[&key]);
    assert!(door.check(Some(&key.token(&claims_without("tenant_id"))), NOW).is_err());
    assert_eq!(door.keyring.cache.len(), 0);
}

#[test]
fn a_key_taken_out_of_the_set_stops_counting_at_once() {
    let (old, new) = (TestKey::ec("old"), TestKey::ec("new"));
    let script = Script::default()
        .then(Ok(key_set(&[&old])))
        .then(Ok(key_set(&[&old])))
        .then(Ok(key_set(&[&new])));
    let (door, refresher) = door(&script);
    let token = old.token(&claims());
    refresher.pass(NOW);
    let first = door.check(Some(&token), NOW).unwrap();
    refresher.pass(NOW + 1);
    let second = door.check(Some(&token), NOW + 1).unwrap();
    assert!(Arc::ptr_eq(&first, &second), "an unchanged set leaves the cache alone");
    refresher.pass(NOW + 2);
    assert!(door.check(Some(&token), NOW + 2).is_err());
    assert!(door.check(Some(&new.token(&claims())), NOW + 2).is_ok());
}

#[test]
fn the_last_good_keys_stay_while_the_provider_is_away() {
    let key = TestKey::ec("ec");
    let script = Script::default()
        .then(Ok(key_set(&[&key])))
        .then(Err("no route to host"))
        .then(Ok(b"<html>".to_vec()))
        .then(Ok(br#"{"keys":[]}"#.to_vec()));
    let (door, refresher) = door(&script);
    refresher.pass(NOW);
    for i in 1..=3 {
        let rest = refresher.pass(NOW + i);
        assert!(rest < Duration::from_secs(60), "it is tried again soon");
        let token = key.token(&claims_with("jti", json!(i)));
        assert!(door.check(Some(&token), NOW + i).is_ok());
    }
    let KeysState::Loaded { keys: 1, age, last_error: Some(why) } = door.keys_state(NOW + 3) else {
        panic!("{:?}", door.keys_state(NOW + 3));
    };
    assert_eq!(age, Duration::from_secs(3));
    assert!(why.contains("no key"), "{why}");
}

#[test]
fn before_the_first_keys_a_caller_waits_and_then_learns_that_there_are_none() {
    let key = TestKey::ec("ec");
    let (door, refresher) = door(&Script::default().then(Err("no route to host")));
    let token = key.token(&claims());
    assert_eq!(door.check(Some(&token), NOW), Err(AuthError::Retry));
    refresher.pass(NOW);
    assert_eq!(door.check(Some(&token), NOW + 1), Err(AuthError::NoKeys));
    assert_eq!(door.keys_state(NOW), KeysState::NeverLoaded("no route to host".to_string()));
    assert_eq!(door.check_waiting(Some(&token), NOW + 1, SOON), Err(AuthError::NoKeys));
}

#[test]
fn a_flood_of_unknown_keys_causes_one_fetch_in_ten_seconds() {
    let key = TestKey::ec("ec");
    let script = Script::default().then(Ok(key_set(&[&key])));
    let (door, refresher) = door(&script);
    refresher.pass(NOW);
    let stranger = TestKey::ec("stranger").token(&claims());
    for _ in 0..100 {
        assert!(matches!(door.check(Some(&stranger), NOW + 9), Err(AuthError::Invalid(_))));
    }
    for _ in 0..100 {
        assert_eq!(door.check(Some(&stranger), NOW + 10), Err(AuthError::Retry));
    }
    refresher.pass(NOW + 10);
    assert!(matches!(door.check(Some(&stranger), NOW + 11), Err(AuthError::Invalid(_))));
    assert_eq!(script.fetches(), 2);
    assert_eq!(
        door.check(Some(&stranger), NOW - 1000),
        Err(AuthError::Retry),
        "the clock was set back"
    );
}

#[test]
fn unknown_tokens_hold_up_one_worker_at_a_time() {
    let key = TestKey::ec("ec");
    let (door, refresher) = door(&Script::default().then(Ok(key_set(&[&key]))));
    let token = key.token(&claims());
    let seat = Seat::take(&door.waiters).unwrap();
    assert_eq!(door.check_waiting(Some(&token), NOW, SOON), Err(AuthError::NoKeys));
    drop(seat);
    assert_eq!(door.check_waiting(Some(&token), NOW, Duration::ZERO), Err(AuthError::NoKeys));
    refresher.pass(NOW);
    assert!(door.check_waiting(Some(&token), NOW, Duration::ZERO).is_ok());
}

/// A provider on loopback that counts what it is asked.
struct TestProvider {
    address: SocketAddr,
    pages: Arc<Mutex<BTreeMap<String, (u16, Vec<u8>)>>>,
    requests: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl TestProvider {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let pages: Arc<Mutex<BTreeMap<String, (u16, Vec<u8>)>>> = Arc::default();
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
    mut stream: TcpStream,
    pages: &Mutex<BTreeMap<String, (u16, Vec<u8>)>>,
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
    assert!(door.check_waiting(Some(&token(&old, 0)), now, SOON).is_ok());
    server.page("/keys", 200, key_set(&[&old, &new]));
    let later = now + 60;
    assert_eq!(door.check(Some(&token(&new, 1)), later), Err(AuthError::Retry));
    assert!(door.check_waiting(Some(&token(&new, 1)), later, SOON).is_ok());
    for id in 2..50 {
        assert!(door.check(Some(&token(&new, id)), later).is_ok());
    }
    assert_eq!(server.requests.lock().iter().filter(|path| *path == "/keys").count(), 2);
    let end = component.join_by(Instant::now() + SOON);
    assert!(matches!(end, crate::component::End::Clean), "{end:?}");
}

#[test]
fn a_development_service_takes_its_own_tokens_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite://{}", folder.path().display());
    let (config, _) = Config::load(&Surroundings {
        lookup: &|name| (name == "SENTINEL_DATABASE").then(|| database.clone()),
        names: &[],
        read_file: &|_| Err(std::io::ErrorKind::NotFound.into()),
        overrides: Default::default(),
        cores: 1,
        terminal: false,
    })
    .unwrap();
    let (door, refresher) = Authenticator::new(&config).unwrap();
    assert!(refresher.is_none());
    assert_eq!(door.keys_state(NOW), KeysState::Development);
    let tenant = TenantId::parse("contoso").unwrap();
    let sign = |folder: PathBuf| {
        let ttl = Duration::from_secs(3600);
        development::token(&folder, &tenant, &[Role::Admin], ttl, NOW).unwrap()
    };
    let token = format!("Bearer {}", sign(folder.path().to_path_buf()));
    let principal = door.check(Some(&token), NOW).unwrap();
    assert_eq!(principal.tenant(), &tenant);
    assert!(principal.may(Role::Admin));
    assert!(door.check(Some(&token), NOW + 3600 + 30).is_err());

    let elsewhere = tempfile::tempdir().unwrap();
    DevelopmentKey::open_or_make(elsewhere.path()).unwrap();
    let foreign = format!("Bearer {}", sign(elsewhere.path().to_path_buf()));
    assert!(matches!(door.check(Some(&foreign), NOW), Err(AuthError::Invalid(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn garbage_never_panics_and_never_gets_in(
        text in ".{0,200}",
        head in "[A-Za-z0-9_-]{0,80}",
        claims in "[A-Za-z0-9_-]{0,80}",
        signed in "[A-Za-z0-9_-]{0,90}",
        value in r#"\{"alg":"(RS256|ES256|none|HS256)","kid":"(ec|x|)"\}"#,
    ) {
        let door = garbage_door();
        let encoded = URL_SAFE_NO_PAD.encode(&value);
        let garbled = URL_SAFE_NO_PAD.encode(&text);
        for token in [
            text.clone(),
            format!("Bearer {text}"),
            format!("Bearer {head}.{claims}.{signed}"),
            format!("Bearer {encoded}.{claims}.{signed}"),
            format!("Bearer {encoded}.{garbled}.{signed}"),
        ] {
            prop_assert!(door.check(Some(&token), NOW).is_err());
        }
    }
}

fn garbage_door() -> &'static Authenticator {
    static DOOR: std::sync::OnceLock<Arc<Authenticator>> = std::sync::OnceLock::new();
    DOOR.get_or_init(|| door_with(&[&TestKey::ec("ec")]))
}
