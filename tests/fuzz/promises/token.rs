//! What the door promises of tokens, whatever is brought to it. This module forges tokens out of the input, by the way
//! that its first byte names, for a door whose private keys it knows.
//!
//! * Nothing panics, whatever the token and whatever the key set.
//! * A forged token is never accepted: what gets in is, head and claims, what a key of the set has signed.
//! * A truly signed token whose claims do not fit is never accepted either.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use sentinel::config::DefaultRole;
use sentinel::http::auth::{AuthError, Authenticator, Role, TOKEN_BYTES_MAX};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;
const LEEWAY_S: f64 = 30.0;
const ISSUER: &str = "https://id.example.com/realms/main";
const AUDIENCE: &str = "clm-service";
/// A key pair that is public and protects nothing.
const TEST_ONLY_RSA: &[u8] = include_bytes!("../../fixtures/test-only-rsa-2048.pk8");
/// The private key is 1, so the public one is the generator of P-256 (SP 800-186, 3.2.1.3).
const GENERATOR: [&str; 2] = [
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
];
const WAYS: u8 = 5;

/// The keys, the door that trusts them, and one good token of each.
struct Realm {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    door: Authenticator,
    /// Message (head and claims) and signature, by the name of the key.
    good: Vec<(&'static str, String, Vec<u8>)>,
    /// What an attacker has at hand as a secret for HS256: every way to write the public key.
    public: Vec<Vec<u8>>,
}

impl Realm {
    fn get() -> &'static Self {
        static REALM: OnceLock<Realm> = OnceLock::new();
        REALM.get_or_init(Self::new)
    }

    fn new() -> Self {
        let rsa = RsaKeyPair::from_pkcs8(TEST_ONLY_RSA).expect("the fixture is a key");
        let (x, y) = (unhex(GENERATOR[0]), unhex(GENERATOR[1]));
        let (mut one, point) = ([0; 32], [&[4], x.as_slice(), &y].concat());
        one[31] = 1;
        let ec = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &one,
            &point,
            &SystemRandom::new(),
        )
        .expect("1 is a private key");
        let components: PublicKeyComponents<Vec<u8>> = rsa.public().into();
        let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (n, e) = (base64(&components.n), base64(&components.e));
        let keys = json!({"keys": [
            {"kid": "rsa", "kty": "RSA", "alg": "RS256", "use": "sig", "n": n, "e": e},
            {"kid": "ec", "kty": "EC", "alg": "ES256", "use": "sig", "crv": "P-256", "x": base64(&x), "y": base64(&y)},
            {"kid": "enc", "kty": "RSA", "alg": "RSA-OAEP", "use": "enc", "n": n, "e": e},
        ]})
        .to_string();
        let door = door(keys.as_bytes()).expect("the keys are a key set");
        let der = rsa.public().as_ref().to_vec();
        let pem = STANDARD.encode(&der);
        let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{pem}\n-----END RSA PUBLIC KEY-----\n");
        let public = vec![der, pem.into_bytes(), components.n, point, x, n.into_bytes()];
        let mut realm = Self { rsa, ec, door, good: Vec::new(), public };
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": NOW - 10, "exp": NOW + 3600,
            "tenant_id": "contoso", "roles": ["sentinel:write"],
        })
        .to_string();
        for (kid, alg) in [("rsa", "RS256"), ("ec", "ES256")] {
            let head = format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
            let message = message(head.as_bytes(), claims.as_bytes());
            let signed = realm.sign(kid, &message);
            realm.good.push((kid, message, signed));
        }
        for (kid, message, signed) in &realm.good {
            let principal = realm.door.check(Some(&bearer(message, signed)), NOW).expect(kid);
            assert!(principal.may(Role::Write) && principal.tenant().as_str() == "contoso");
        }
        realm
    }

    fn sign(&self, kid: &str, message: &str) -> Vec<u8> {
        let random = SystemRandom::new();
        if kid == "ec" {
            let signed = self.ec.sign(&random, message.as_bytes());
            return signed.expect("the key signs").as_ref().to_vec();
        }
        let mut signed = vec![0; self.rsa.public().modulus_len()];
        let (padding, message) = (&RSA_PKCS1_SHA256, message.as_bytes());
        self.rsa.sign(padding, &random, message, &mut signed).expect("the key signs");
        signed
    }
}

fn unhex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(|pair| byte(pair).expect("hexadecimal digits")).collect()
}

fn door(key_set: &[u8]) -> Option<Authenticator> {
    let audience = vec!["other".to_owned(), AUDIENCE.to_owned()];
    Authenticator::of_key_set(key_set, ISSUER, audience, DefaultRole::None).ok()
}

fn message(head: &[u8], claims: &[u8]) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims))
}

fn bearer(message: &str, signed: &[u8]) -> String {
    format!("Bearer {message}.{}", URL_SAFE_NO_PAD.encode(signed))
}

/// Checks every promise with one input.
pub(crate) fn check(data: &[u8]) {
    let Some((&way, rest)) = data.split_first() else { return };
    let realm = Realm::get();
    match way % WAYS {
        0 => {
            // The front hands on nothing else than text.
            if let Ok(authorization) = std::str::from_utf8(rest) {
                never_a_forgery(realm, authorization);
            }
        }
        1 => {
            let mut parts = rest.splitn(3, |byte| *byte == b'\n');
            let mut part = || parts.next().unwrap_or_default();
            let (head, claims, signed) = (part(), part(), part());
            never_a_forgery(realm, &bearer(&message(head, claims), signed));
        }
        2 => with_what_lies_around(realm, rest),
        3 => truly_signed(realm, rest),
        _ => any_key_set(realm, rest),
    }
}

fn never_a_forgery(realm: &Realm, authorization: &str) {
    let Ok(principal) = realm.door.check(Some(authorization), NOW) else { return };
    let (_, token) = authorization.split_once(' ').expect("a scheme and a token");
    let (message, _) = token.trim_matches(' ').rsplit_once('.').expect("three parts");
    let signed = realm.good.iter().any(|(_, good, _)| good == message);
    assert!(signed, "nobody has signed {authorization:?}, and it is {principal:?}");
    let expired = realm.door.check(Some(authorization), NOW + 3600 + 30);
    assert_eq!(expired.err(), Some(AuthError::Invalid("the token has expired")));
}

/// Any head and any claims, with signatures that an attacker can get or make without a private key.
fn with_what_lies_around(realm: &Realm, rest: &[u8]) {
    let Some((&which, rest)) = rest.split_first() else { return };
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let (head, claims) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let message = message(head, claims);
    let which = usize::from(which) % (realm.good.len() + realm.public.len() + 1);
    let signed = if let Some((_, _, signed)) = realm.good.get(which) {
        signed.clone()
    } else if let Some(secret) = realm.public.get(which - realm.good.len()) {
        let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        ring::hmac::sign(&secret, message.as_bytes()).as_ref().to_vec()
    } else {
        Vec::new()
    };
    never_a_forgery(realm, &bearer(&message, &signed));
}

/// The key is right, and so is the signature: now the claims decide.
fn truly_signed(realm: &Realm, claims: &[u8]) {
    let message = message(br#"{"alg":"ES256","kid":"ec"}"#, claims);
    let authorization = bearer(&message, &realm.sign("ec", &message));
    let Ok(principal) = realm.door.check(Some(&authorization), NOW) else { return };
    assert!(authorization.len() <= TOKEN_BYTES_MAX + "Bearer ".len());
    let claims = std::str::from_utf8(claims).expect("accepted claims are text");
    serde_json::from_str::<IgnoredAny>(claims).expect("accepted claims are JSON");
    // What nobody reads may be beyond what a `Value` can hold: a large number, half a character.
    let Ok(claims) = serde_json::from_str::<Value>(claims) else { return };
    let now = f64::from(u32::try_from(NOW).expect("it is before 2106"));
    let time = |name: &str| claims[name].as_f64();
    assert!(time("exp").is_some_and(|exp| now < exp + LEEWAY_S), "{claims}");
    assert!(time("iat").is_some_and(|iat| iat <= now + LEEWAY_S), "{claims}");
    assert!(time("nbf").is_none_or(|nbf| nbf <= now + LEEWAY_S), "{claims}");
    assert_eq!(claims["iss"].as_str(), Some(ISSUER), "{claims}");
    assert!(names(&claims["aud"], AUDIENCE) || names(&claims["aud"], "other"), "{claims}");
    assert_eq!(claims["tenant_id"].as_str(), Some(principal.tenant().as_str()), "{claims}");
    assert!(claims["cnf"].get("x5t#S256").is_none(), "there is no client certificate: {claims}");
    for role in Role::ALL {
        let named = claims.to_string().contains("sentinel:");
        assert!(named || !principal.may(role), "no role comes from nothing: {claims}");
    }
}

/// Whether a claim is `name`, or a list that holds it.
fn names(claim: &Value, name: &str) -> bool {
    claim.as_str() == Some(name)
        || claim.as_array().is_some_and(|list| list.iter().any(|one| one.as_str() == Some(name)))
}

/// The provider itself may send anything, and its keys may be of any kind.
fn any_key_set(realm: &Realm, document: &[u8]) {
    let Some(door) = door(document) else { return };
    for (_, message, signed) in &realm.good {
        // Whether it is let in is up to the keys; unsigned it never is.
        let _ = door.check(Some(&bearer(message, signed)), NOW);
        door.check(Some(&bearer(message, b"")), NOW).unwrap_err();
        door.check(Some(&bearer(message, &vec![0; signed.len()])), NOW).unwrap_err();
    }
}
