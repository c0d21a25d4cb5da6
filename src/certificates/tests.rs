//! What is said about files that cannot be used. This module makes such files.

use std::collections::BTreeMap;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

use super::*;

fn pair() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    (made.cert.pem(), made.key_pair.serialize_pem())
}

fn authority() -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

fn files(client_auth: ClientAuth) -> ServerFiles {
    ServerFiles {
        certificate: "cert.pem".into(),
        key: "key.pem".into(),
        client_ca: Some("ca.pem".into()),
        client_auth,
    }
}

/// What is wrong, a line each, with these files.
fn flaws(client_auth: ClientAuth, texts: &[(&str, &str)]) -> Vec<(Part, String)> {
    let texts: BTreeMap<&str, &str> = texts.iter().copied().collect();
    let read = |path: &Path| {
        let text = texts.get(path.to_str().unwrap());
        text.map(ToString::to_string).ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    match load(&files(client_auth), &read) {
        Ok(_) => Vec::new(),
        Err(flaws) => flaws.into_iter().map(|flaw| (flaw.part, flaw.what)).collect(),
    }
}

#[test]
fn good_files_make_a_server_that_speaks_only_1_3() {
    let ((certificate, key), ca) = (pair(), authority());
    let texts = [("cert.pem", &*certificate), ("key.pem", &*key), ("ca.pem", &*ca)];
    for client_auth in [ClientAuth::Off, ClientAuth::Optional, ClientAuth::Required] {
        assert_eq!(flaws(client_auth, &texts), []);
    }
    assert_eq!(
        flaws(ClientAuth::Off, &texts[..2]),
        [],
        "an authority that is not used is not read"
    );
}

#[test]
fn every_bad_file_is_named_and_all_come_at_once() {
    let ((certificate, key), (_, other_key)) = (pair(), pair());
    let all = flaws(ClientAuth::Required, &[]);
    assert_eq!(
        all.iter().map(|(part, _)| *part).collect::<Vec<_>>(),
        [Part::Certificate, Part::Key, Part::ClientCa]
    );
    assert!(all.iter().all(|(_, what)| what.contains("cannot read") && what.contains("may read")));
    let one = |texts: &[(&str, &str)], part, words: &str| {
        let found = flaws(ClientAuth::Required, texts);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0 == part && found[0].1.contains(words), "{found:?}");
    };
    let ca = authority();
    let (cert, key, ca) = (("cert.pem", &*certificate), ("key.pem", &*key), ("ca.pem", &*ca));
    one(&[cert, ("key.pem", &other_key), ca], Part::Key, "is not the key of the first certificate");
    one(&[("cert.pem", "x"), key, ca], Part::Certificate, "holds no certificate");
    one(&[cert, ("key.pem", &certificate), ca], Part::Key, "holds no private key");
    one(&[cert, key, ("ca.pem", "x")], Part::ClientCa, "holds no certificate");
    let sealed =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    one(&[cert, ("key.pem", sealed), ca], Part::Key, "an encrypted one cannot be used");
}
