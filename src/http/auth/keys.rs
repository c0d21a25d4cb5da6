//! The keys that tokens are verified with. This module reads a provider's key set and keeps of it what can verify a
//! signature in one of two ways; which way is fixed by the key and never by the token.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use ring::digest::{Context, SHA256};
use serde::Deserialize;
use serde_json::Value;

use super::AuthError;
use super::principal::{Claims, LEEWAY_S};

/// No provider has more keys in use; the rest of a longer set is not read.
const KEYS_MAX: usize = 64;
/// A shorter modulus is no protection any more.
const RSA_BITS_MIN: usize = 2048;
/// Verifying with a longer one costs more than a request may.
const RSA_BITS_MAX: usize = 8192;
const P256_BYTES: usize = 32;

/// What every token must say, whatever key it was signed with.
#[derive(Debug, Clone)]
pub(super) struct Expectations {
    pub(super) issuer: String,
    pub(super) audience: Vec<String>,
}

/// One public key, and what is expected of a token signed with it.
struct VerifyingKey {
    key: DecodingKey,
    validation: Validation,
}

/// All keys of a provider.
#[derive(Default)]
pub(super) struct KeySet {
    keys: HashMap<String, VerifyingKey>,
    /// Equal for equal sets, so that a refresh without a change leaves the cache alone.
    fingerprint: [u8; 32],
}

/// Why an answer is no key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("the key set is not JSON with an array called keys")]
    Malformed,
    #[error("the key set holds no key for RS256 or ES256 signatures with a kid")]
    Empty,
}

/// A key as the provider writes it. Unknown members are none of our business.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a JWKS document. A key that we can't use is skipped: it is there for somebody else.
    pub(super) fn parse(document: &[u8], expected: &Expectations) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document =
            serde_json::from_slice(document).map_err(|_| KeySetError::Malformed)?;
        let mut keys = HashMap::new();
        for value in document.keys.into_iter().take(KEYS_MAX) {
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else { continue };
            let Some((kid, algorithm, key)) = usable(jwk) else { continue };
            let validation = validation(algorithm, expected);
            keys.entry(kid).or_insert(VerifyingKey { key, validation });
        }
        if keys.is_empty() {
            return Err(KeySetError::Empty);
        }
        let fingerprint = fingerprint(&keys);
        Ok(Self { keys, fingerprint })
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether there is a key of this name.
    pub(super) fn holds(&self, kid: &str) -> bool {
        self.keys.contains_key(kid)
    }

    /// Whether both hold the same keys.
    pub(super) fn equals(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }

    /// The claims of `token`, if the key called `kid` signed it and everything in it is as expected at `now_s`.
    pub(super) fn verify(&self, kid: &str, token: &str, now_s: u64) -> Result<Claims, AuthError> {
        let key = self.keys.get(kid).ok_or(AuthError::Invalid("no key has the token's kid"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.key, &key.validation)
            .map_err(|error| AuthError::Invalid(reason(&error)))?
            .claims;
        // A provider may be careless; what two readers could understand differently is refused here, too.
        if !token.split('.').take(2).all(is_text) {
            return Err(AuthError::Invalid("the token is malformed"));
        }
        if !claims.iss.as_ref().is_some_and(Value::is_string) {
            return Err(AuthError::Invalid("the issuer is not ours"));
        }
        check_times(&claims, now_s)?;
        Ok(claims)
    }
}

/// Whether a part of a token is text once it is decoded, as JSON must be, and not only where we read it.
fn is_text(part: &str) -> bool {
    URL_SAFE_NO_PAD.decode(part).is_ok_and(|bytes| std::str::from_utf8(&bytes).is_ok())
}

/// Whether the token is good at `now_s`.
fn check_times(claims: &Claims, now_s: u64) -> Result<(), AuthError> {
    let now = seconds(now_s);
    let Some(exp) = claims.exp else { return Err(AuthError::Invalid("the claim exp is missing")) };
    let Some(iat) = claims.iat else { return Err(AuthError::Invalid("the claim iat is missing")) };
    if now >= exp + LEEWAY_S {
        return Err(AuthError::Invalid("the token has expired"));
    }
    if iat > now + LEEWAY_S {
        return Err(AuthError::Invalid("the token was issued in the future"));
    }
    if claims.nbf.is_some_and(|nbf| nbf > now + LEEWAY_S) {
        return Err(AuthError::Invalid("the token is not valid yet"));
    }
    Ok(())
}

/// Seconds as claims count them. Exact for the next hundred years.
pub(super) fn seconds(now_s: u64) -> f64 {
    f64::from(u32::try_from(now_s).unwrap_or(u32::MAX))
}

/// The times are checked by [`check_times`], because the library would read the clock.
fn validation(algorithm: Algorithm, expected: &Expectations) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    validation.set_issuer(&[&expected.issuer]);
    validation.set_audience(&expected.audience);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation
}

fn reason(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::InvalidSignature => "the signature is not that of the key",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            "the algorithm is not that of the key"
        }
        ErrorKind::InvalidIssuer => "the issuer is not ours",
        ErrorKind::InvalidAudience => "the audience is not us",
        ErrorKind::MissingRequiredClaim(claim) => match claim.as_str() {
            "exp" => "the claim exp is missing",
            "iss" => "the claim iss is missing",
            _ => "the claim aud is missing",
        },
        _ => "the token is malformed",
    }
}

/// The name, algorithm and key of a JWK that can verify signatures our way.
fn usable(jwk: Jwk) -> Option<(String, Algorithm, DecodingKey)> {
    let for_signatures = jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && jwk.key_ops.is_none_or(|operations| operations.iter().any(|o| o == "verify"));
    let kid = jwk.kid.filter(|kid| !kid.is_empty())?;
    if !for_signatures {
        return None;
    }
    let decode = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
    match (jwk.kty.as_str(), jwk.alg.as_deref()) {
        ("RSA", None | Some("RS256")) => {
            let modulus = decode(jwk.n)?;
            let modulus = &modulus[modulus.iter().position(|byte| *byte != 0)?..];
            let unused_bits = usize::try_from(modulus[0].leading_zeros()).ok()?;
            let bits = modulus.len() * 8 - unused_bits;
            if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
                return None;
            }
            let key = DecodingKey::from_rsa_raw_components(modulus, &decode(jwk.e)?);
            Some((kid, Algorithm::RS256, key))
        }
        ("EC", None | Some("ES256")) if jwk.crv.as_deref() == Some("P-256") => {
            let (x, y) = (decode(jwk.x)?, decode(jwk.y)?);
            if x.len() != P256_BYTES || y.len() != P256_BYTES {
                return None;
            }
            // The point, uncompressed.
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            Some((kid, Algorithm::ES256, DecodingKey::from_ec_der(&point)))
        }
        _ => None,
    }
}

fn fingerprint(keys: &HashMap<String, VerifyingKey>) -> [u8; 32] {
    use jsonwebtoken::DecodingKeyKind::{RsaModulusExponent, SecretOrDer};
    let mut names: Vec<&String> = keys.keys().collect();
    names.sort();
    let mut digest = Context::new(&SHA256);
    for name in names {
        let mut part = |bytes: &[u8]| {
            // Lengths keep neighbours apart.
            digest.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(bytes);
        };
        part(name.as_bytes());
        match keys[name].key.kind() {
            SecretOrDer(bytes) => part(bytes),
            RsaModulusExponent { n, e } => {
                part(n);
                part(e);
            }
        }
    }
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(digest.finish().as_ref());
    fingerprint
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expected() -> Expectations {
        Expectations { issuer: "https://id.example.com".into(), audience: vec!["us".into()] }
    }

    fn names(keys: Value) -> Vec<String> {
        let set = match KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), &expected()) {
            Ok(set) => set,
            Err(KeySetError::Empty) => return Vec::new(),
            Err(KeySetError::Malformed) => panic!("malformed"),
        };
        let mut names: Vec<String> = set.keys.into_keys().collect();
        names.sort();
        names
    }

    #[test]
    fn only_keys_that_verify_signatures_our_way_are_kept() {
        let bytes = |count: usize| URL_SAFE_NO_PAD.encode(vec![0xff; count]);
        let n = bytes(256);
        let zero_in_front = URL_SAFE_NO_PAD.encode([vec![0], vec![0xff; 256]].concat());
        let (x, y) = (bytes(32), bytes(32));
        assert_eq!(
            names(json!([
                {"kid": "rsa", "kty": "RSA", "alg": "RS256", "use": "sig", "n": n, "e": "AQAB", "x5c": ["?"]},
                {"kid": "rsa-bare", "kty": "RSA", "n": n, "e": "AQAB"},
                {"kid": "rsa-zero", "kty": "RSA", "n": zero_in_front, "e": "AQAB"},
                {"kid": "ec", "kty": "EC", "alg": "ES256", "use": "sig", "crv": "P-256", "x": x, "y": y},
                {"kid": "ec-bare", "kty": "EC", "crv": "P-256", "x": x, "y": y, "key_ops": ["verify"]},
                {"kid": "no-enc", "kty": "RSA", "alg": "RSA-OAEP", "use": "enc", "n": n, "e": "AQAB"},
                {"kid": "no-enc2", "kty": "RSA", "use": "enc", "n": n, "e": "AQAB"},
                {"kid": "no-oaep", "kty": "RSA", "alg": "RSA-OAEP", "n": n, "e": "AQAB"},
                {"kid": "no-rs512", "kty": "RSA", "alg": "RS512", "n": n, "e": "AQAB"},
                {"kid": "no-ops", "kty": "RSA", "key_ops": ["encrypt"], "n": n, "e": "AQAB"},
                {"kid": "no-1024", "kty": "RSA", "n": bytes(128), "e": "AQAB"},
                {"kid": "no-2040", "kty": "RSA", "n": bytes(255), "e": "AQAB"},
                {"kid": "no-16384", "kty": "RSA", "n": bytes(2048), "e": "AQAB"},
                {"kid": "no-zeros", "kty": "RSA", "n": "AAAA", "e": "AQAB"},
                {"kid": "no-base64", "kty": "RSA", "n": "!", "e": "AQAB"},
                {"kid": "no-n", "kty": "RSA", "e": "AQAB"},
                {"kid": "no-p384", "kty": "EC", "crv": "P-384", "x": bytes(48), "y": bytes(48)},
                {"kid": "no-short", "kty": "EC", "crv": "P-256", "x": bytes(31), "y": y},
                {"kid": "no-oct", "kty": "oct", "alg": "HS256", "k": "c2VjcmV0"},
                {"kid": "no-okp", "kty": "OKP", "crv": "Ed25519", "x": x},
                {"kid": "no-foo", "kty": "FOO", "alg": "XX", "use": "sig"},
                {"kid": "", "kty": "RSA", "n": n, "e": "AQAB"},
                {"kty": "RSA", "n": n, "e": "AQAB"},
                {"kid": 7, "kty": "RSA", "n": n, "e": "AQAB"},
                "no key at all",
            ])),
            ["ec", "ec-bare", "rsa", "rsa-bare", "rsa-zero"]
        );
    }

    #[test]
    fn a_set_without_a_usable_key_is_refused_and_so_is_no_set() {
        assert_eq!(KeySet::parse(br#"{"keys":[]}"#, &expected()).err(), Some(KeySetError::Empty));
        for document in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>"] {
            let parsed = KeySet::parse(document.as_bytes(), &expected());
            assert_eq!(parsed.err(), Some(KeySetError::Malformed), "{document}");
        }
    }

    #[test]
    fn an_endless_set_is_read_in_part() {
        let n = URL_SAFE_NO_PAD.encode(vec![0xff; 256]);
        let keys: Vec<Value> = (0..KEYS_MAX + 9)
            .map(|i| json!({"kid": i.to_string(), "kty": "RSA", "n": n, "e": "AQAB"}))
            .collect();
        assert_eq!(names(json!(keys)).len(), KEYS_MAX);
    }
}
