//! The door under attack: one test for each forgery. This module signs whatever an attacker might send.

use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

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
    door.check(Some(&lower_case), NOW).unwrap();
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
        (claims_with("iss", json!([ISSUER])), "the issuer is not ours"),
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
            "the claim cnf.x5t#S256 is no SHA-256 thumbprint in base64url",
        ),
        (
            claims_with("cnf", json!({"x5t#S256": "A".repeat(43)})),
            "the token is bound to a client certificate, and this connection shows none",
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
fn a_token_that_is_not_text_is_refused_also_where_nobody_reads_it() {
    let key = TestKey::ec("ec");
    let door = door_with(&[&key]);
    let good = claims_with("nickname", json!("M")).to_string();
    let token = |head: &[u8], claims: &[u8]| {
        let message =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
        let signed = URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()));
        format!("Bearer {message}.{signed}")
    };
    let head = br#"{"alg":"ES256","kid":"ec"}"#;
    door.check(Some(&token(head, good.as_bytes())), NOW).unwrap();
    let mut bad = good.into_bytes();
    let at = bad.windows(3).position(|letters| letters == b"\"M\"").unwrap();
    bad[at + 1] = 0xad;
    assert_eq!(reason(&door, &token(head, &bad)), "the token is malformed");
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
