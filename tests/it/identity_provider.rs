//! Callers come with tokens of a real identity provider. This module runs a certified one (of `OpenID` Connect), the
//! package `oidc-provider`, behind a private CA, and turns its keys and its clock, kills it and starts it again.
//!
//! Where there is no Node.js, or the package cannot be had, every test here says SKIPPED and proves nothing.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crossbeam::channel::{Receiver, unbounded};
use sentinel::service::{Parts, wall_clock};
use serde_json::{Value, json};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::harness::{Client, InProcess, PATIENCE, Response, envelope, eventually};

/// The first release that the package runs on.
const NODE_MAJOR_MIN: u32 = 20;

/// Where the package is installed, or why it is not. Done once for all tests.
fn installed() -> Result<&'static Path, &'static str> {
    static INSTALLED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| {
        let outcome = install();
        if let Err(why) = &outcome {
            // To the terminal, whatever becomes of the output of tests that pass.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: no test with a certified identity provider: {why}"
            );
        }
        outcome
    });
    installed.as_deref().map_err(String::as_str)
}

/// Puts the package into the target folder, in the versions of `tests/oidc/package-lock.json`.
fn install() -> Result<PathBuf, String> {
    let version = Command::new("node").arg("--version").output();
    let version = version.map_err(|error| format!("node: {error}"))?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let major = version.trim_start_matches('v').split('.').next().and_then(|n| n.parse().ok());
    if major.is_none_or(|major: u32| major < NODE_MAJOR_MIN) {
        return Err(format!("node is {version:?}, and {NODE_MAJOR_MIN} is needed"));
    }
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oidc");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oidc");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    for file in ["package.json", "package-lock.json", "provider.mjs"] {
        fs::copy(from.join(file), folder.join(file)).map_err(|error| error.to_string())?;
    }
    // npm is only asked where what it installed is not that of this lock file.
    let lock = fs::read(from.join("package-lock.json")).map_err(|error| error.to_string())?;
    let done = folder.join("installed.json");
    if fs::read(&done).is_ok_and(|of| of == lock) {
        return Ok(folder);
    }
    let output = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"])
        .args(["--fetch-retries=1", "--fetch-timeout=30000"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("npm: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("npm ci: {}", said.lines().last().unwrap_or("it failed")));
    }
    fs::write(done, lock).map_err(|error| error.to_string())?;
    Ok(folder)
}

/// A certificate authority of our own, and what it vouches for.
struct Authority {
    folder: tempfile::TempDir,
    pem: String,
}

impl Authority {
    /// Makes the authority and a certificate for localhost.
    fn new() -> Self {
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        authority.distinguished_name.push(rcgen::DnType::CommonName, "test-only authority");
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let authority = authority.self_signed(&authority_key).unwrap();
        let server = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let server_key = rcgen::KeyPair::generate().unwrap();
        let server = server.signed_by(&server_key, &authority, &authority_key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        fs::write(folder.path().join("server.pem"), server.pem()).unwrap();
        fs::write(folder.path().join("server.key"), server_key.serialize_pem()).unwrap();
        Self { folder, pem: authority.pem() }
    }

    fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }
}

/// The provider, in a process of its own.
struct Provider {
    authority: Authority,
    tls_max: &'static str,
    port: u16,
    /// With its input, and what it has said, line by line.
    process: Option<(Child, ChildStdin, Receiver<String>)>,
}

impl Provider {
    /// Starts the provider. None: it cannot be had here, which has been said.
    fn start() -> Option<Self> {
        Self::start_with("TLSv1.3")
    }

    fn start_with(tls_max: &'static str) -> Option<Self> {
        installed().ok()?;
        let authority = Authority::new();
        let mut provider = Self { authority, tls_max, port: 0, process: None };
        provider.run();
        Some(provider)
    }

    /// Starts the process, with the keys and on the port that it had before.
    fn run(&mut self) {
        let folder = installed().expect("it was there a moment ago");
        let settings = json!({
            "port": self.port,
            "certificate": self.authority.path("server.pem"),
            "key": self.authority.path("server.key"),
            "keys": self.authority.path("keys.json"),
            "tls_max": self.tls_max,
        });
        let mut child = Command::new("node")
            .args([folder.join("provider.mjs").as_os_str(), settings.to_string().as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It warns of what is meant: a store in memory, and a Node.js that is not the newest.
            .stderr(Stdio::null())
            .spawn()
            .expect("node runs");
        let input = child.stdin.take().expect("stdin is piped");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (says, hears) = unbounded();
        std::thread::Builder::new()
            .spawn(move || {
                // The test is over before the provider has ended, or the other way about.
                let lines = output.lines().map_while(Result::ok);
                let _ = lines.map(|line| says.send(line)).find(Result::is_err);
            })
            .expect("a thread starts");
        self.process = Some((child, input, hears));
        self.port = u16::try_from(self.answer()["port"].as_u64().expect("a port")).unwrap();
    }

    fn kill(&mut self) {
        let (mut child, ..) = self.process.take().expect("it runs");
        child.kill().expect("the provider can be killed");
        child.wait().expect("the provider is gone");
    }

    /// The next line of JSON that the provider says.
    fn answer(&mut self) -> Value {
        let (child, _, output) = self.process.as_mut().expect("it runs");
        loop {
            let Ok(line) = output.recv_timeout(PATIENCE) else {
                let _ = child.kill();
                panic!("the provider says nothing any more: {:?}", child.wait());
            };
            if let Ok(answer) = serde_json::from_str(&line) {
                return answer;
            }
        }
    }

    fn tell(&mut self, command: &Value) -> Value {
        let (_, input, _) = self.process.as_mut().expect("it runs");
        writeln!(input, "{command}").expect("the provider listens");
        let answer = self.answer();
        assert_eq!(answer["done"], command["do"]);
        answer
    }

    fn issuer(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// A token by the client-credentials grant (RFC 6749, 4.4) for a resource (RFC 8707).
    fn token(&self, client: &str, resource: &str) -> String {
        let root = rustls_pki_types::pem::PemObject::from_pem_slice(self.authority.pem.as_bytes());
        let root: rustls_pki_types::CertificateDer<'static> = root.unwrap();
        let roots = RootCerts::new_with_certs(&[Certificate::from_der(&root).to_owned()]);
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = ureq::Agent::config_builder().tls_config(tls).proxy(None);
        let agent = config.timeout_global(Some(PATIENCE)).build().new_agent();
        let credentials = base64::engine::general_purpose::STANDARD;
        let credentials = credentials.encode(format!("{client}:test-only"));
        let form = [
            ("grant_type", "client_credentials"),
            ("resource", resource),
            ("scope", "sentinel:read"),
        ];
        let answer = agent
            .post(format!("{}/token", self.issuer()))
            .header("authorization", format!("Basic {credentials}"))
            .send_form(form)
            .expect("the provider gives a token")
            .body_mut()
            .read_to_vec()
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        answer["access_token"].as_str().expect("a token").to_owned()
    }

    /// A service that trusts this provider.
    fn service(&self, folder: &Path) -> InProcess {
        self.service_with(folder, &[("OAUTH2_CA_FILE", &self.authority.path("ca.pem"))])
    }

    fn service_with(&self, folder: &Path, variables: &[(&str, &str)]) -> InProcess {
        let issuer = self.issuer();
        let variables = [variables, &[("OAUTH2_ISSUER_URI", issuer.as_str())]].concat();
        InProcess::start(folder, wall_clock(), Parts::ALL, &variables)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

fn client(service: &InProcess, token: &str) -> Client {
    Client::new(service.service.api_address(), token)
}

fn processes(service: &InProcess, token: &str) -> Response {
    client(service, token).get("/processes")
}

/// What `/ready` says of the keys.
fn keys(service: &InProcess) -> (String, String) {
    let ready = client(service, "").get("/ready").expect(200).json();
    let checks = ready["checks"].as_array().expect("checks");
    let keys = checks.iter().find(|check| check["name"] == "identity.keys").expect("the keys");
    let text = |name: &str| keys[name].as_str().unwrap_or_default().to_owned();
    (text("state"), text("detail"))
}

/// The token's head and claims.
fn parts(token: &str) -> (Value, Value) {
    let mut parts = token.split('.').map(|part| {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap_or_default())
            .unwrap_or_default()
    });
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn message(head: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(head), part(claims))
}

#[test]
fn tokens_of_a_certified_provider_are_accepted_end_to_end() {
    let Some(provider) = Provider::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let service = provider.service(folder.path());
    let event = envelope(1, "order-17", json!({"x": 1}));
    for (number, resource, algorithm) in
        [(1, "urn:test:rs256", "RS256"), (2, "urn:test:es256", "ES256")]
    {
        let writer = provider.token("writer", resource);
        assert_eq!(parts(&writer).0["alg"], algorithm);
        let mut client = client(&service, &writer);
        let taken = client.event("key-1", &event).expect(202);
        let replayed = taken.header("idempotency-replayed") == Some("true");
        assert_eq!(replayed, number == 2, "the tenant is the same, whatever the algorithm");
        eventually("the event is seen", || {
            (client.get("/v1/streams/order-17").status == 200).then_some(())
        });
        let reader = provider.token("reader", resource);
        let mut reader = self::client(&service, &reader);
        reader.get("/v1/streams/order-17").expect(404);
        reader.event("key-2", &event).expect(403);
    }
    let (state, detail) = keys(&service);
    // Of each generation: RSA and EC. The encryption key and the one for EdDSA are not ours to use.
    assert_eq!((state.as_str(), detail.starts_with("2 keys, ")), ("ok", true), "{detail}");
    service.stop();
}

#[test]
fn a_key_that_is_rotated_is_found_while_running_and_a_retired_one_stops_counting() {
    let Some(mut provider) = Provider::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let service = provider.service(folder.path());
    let old = provider.token("writer", "urn:test:rs256");
    processes(&service, &old).expect(200);

    provider.tell(&json!({"do": "rotate"}));
    let new = provider.token("writer", "urn:test:es256");
    assert_ne!(parts(&old).0["kid"], parts(&new).0["kid"]);
    // Unknown keys cause one fetch in ten seconds.
    eventually("the new key is known", || (processes(&service, &new).status == 200).then_some(()));
    processes(&service, &old).expect(200);

    provider.tell(&json!({"do": "rotate"}));
    provider.tell(&json!({"do": "retire"}));
    let newest = provider.token("writer", "urn:test:rs256");
    eventually("the newest key is known", || {
        (processes(&service, &newest).status == 200).then_some(())
    });
    for retired in [&old, &new] {
        eventually("a retired key counts for nothing", || {
            (processes(&service, retired).status == 401).then_some(())
        });
    }
    service.stop();
}

#[test]
fn what_the_provider_did_not_sign_for_us_is_refused_and_told_why() {
    let Some(mut provider) = Provider::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let service = provider.service(folder.path());
    let good = provider.token("writer", "urn:test:rs256");
    let (head, claims) = parts(&good);
    let (signed_message, signature) = good.rsplit_once('.').unwrap();
    processes(&service, &good).expect(200);

    let none = message(&json!({"alg": "none", "kid": "rsa-1"}), &claims);
    let mut promoted = claims.clone();
    promoted["roles"] = json!(["sentinel:admin"]);
    let promoted = format!("{}.{signature}", message(&head, &promoted));
    // The RSA key for encryption is one that signs well, too: whoever holds it must not get in.
    let encryption = message(&json!({"alg": "RS256", "kid": "enc-1"}), &claims);
    let other_family = message(&json!({"alg": "RS256", "kid": "ec-1"}), &claims);
    let mut sign = |kind: &str, message: &str| {
        let answer = provider.tell(&json!({"do": "sign", "kind": kind, "message": message}));
        format!("{message}.{}", answer["signed"].as_str().expect("a signature"))
    };
    let mut refused = vec![
        ("alg none", format!("{none}."), "names no algorithm that we know"),
        ("alg none, signed", format!("{none}.{signature}"), "names no algorithm that we know"),
        ("no signature", format!("{signed_message}."), "the signature is not that of the key"),
        ("other claims", promoted, "the signature is not that of the key"),
        ("an encryption key", sign("enc", &encryption), "no key has the token's kid"),
        (
            "under another's name",
            sign("enc", signed_message),
            "the signature is not that of the key",
        ),
        (
            "a key of another family",
            sign("rsa", &other_family),
            "the algorithm is not that of the key",
        ),
    ];
    let token = |resource: &str| provider.token("writer", resource);
    refused.extend([
        (
            "HS256 with the public key",
            token("urn:test:hs256"),
            "the algorithm is not that of the key",
        ),
        ("PS256", token("urn:test:ps256"), "the algorithm is not that of the key"),
        // Its key is in the set, and of no use to us.
        ("EdDSA", token("urn:test:eddsa"), "no key has the token's kid"),
        ("another audience", token("urn:test:elsewhere"), "the audience is not us"),
        ("an opaque token", token("urn:test:opaque"), "the token is malformed"),
        (
            "no tenant",
            provider.token("stranger", "urn:test:rs256"),
            "the claim tenant_id is missing",
        ),
    ]);
    provider.tell(&json!({"do": "clock", "offset_s": -3600}));
    let expired = provider.token("writer", "urn:test:rs256");
    refused.push(("an expired token", expired, "the token has expired"));
    provider.tell(&json!({"do": "clock", "offset_s": 3600}));
    let early = provider.token("writer", "urn:test:rs256");
    refused.push(("one of the future", early, "the token was issued in the future"));

    for (name, token, why) in refused {
        // A key that nobody knows may be a new one: for that, a fetch is awaited.
        let answer = processes(&service, &token).expect(401);
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(why), "{name}: {detail}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
        assert!(!answer.text().contains(&token), "{name}: the answer repeats the token");
    }
    processes(&service, &good).expect(200);
    service.stop();
}

#[test]
fn without_its_provider_a_service_starts_serves_and_says_what_is_wrong() {
    let Some(mut provider) = Provider::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let token = provider.token("writer", "urn:test:rs256");
    provider.kill();
    let service = provider.service(folder.path());
    client(&service, "").get("/health").expect(200);
    let answer = processes(&service, &token).expect(503);
    assert!(answer.header("retry-after").is_some());
    let problem = answer.json();
    assert!(problem["type"].as_str().unwrap().ends_with("/keys-unavailable"), "{problem}");
    client(&service, &token).event("key", &envelope(1, "a", json!({}))).expect(503);
    // What needs no key to be judged is judged.
    client(&service, "").get("/processes").expect(401);
    client(&service, "no.token").get("/processes").expect(401);
    let (state, detail) = keys(&service);
    assert_eq!(state, "degraded");
    assert!(detail.starts_with("no keys yet: ") && detail.contains(&provider.issuer()), "{detail}");

    provider.run();
    eventually("the token is accepted", || {
        (processes(&service, &token).status == 200).then_some(())
    });
    assert_eq!(keys(&service).0, "ok");
    service.stop();
}

#[test]
fn the_last_good_keys_go_on_while_the_provider_is_away() {
    let Some(mut provider) = Provider::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let service = provider.service(folder.path());
    let first = provider.token("writer", "urn:test:rs256");
    let unseen = provider.token("writer", "urn:test:es256");
    processes(&service, &first).expect(200);
    provider.tell(&json!({"do": "rotate"}));
    let rotated = provider.token("writer", "urn:test:rs256");
    provider.kill();

    // Its key is asked for at most once in ten seconds; when that has failed, nobody can tell what it is worth.
    eventually("a token of a new key cannot be checked", || {
        (processes(&service, &rotated).status == 503).then_some(())
    });
    let (state, detail) = keys(&service);
    assert_eq!(state, "degraded");
    assert!(
        detail.starts_with("2 keys, ") && detail.contains("the last attempt failed"),
        "{detail}"
    );
    for known in [&first, &unseen] {
        processes(&service, known).expect(200);
    }
    client(&service, &first).event("key", &envelope(1, "a", json!({}))).expect(202);

    provider.run();
    eventually("the new key is known", || {
        (processes(&service, &rotated).status == 200).then_some(())
    });
    assert_eq!(keys(&service).0, "ok");
    service.stop();
}

#[test]
fn a_provider_is_trusted_by_its_own_authority_and_over_tls_1_3_only() {
    let Some(provider) = Provider::start() else { return };
    let stranger = Authority::new();
    let Some(outdated) = Provider::start_with("TLSv1.2") else { return };
    let ca_file = outdated.authority.path("ca.pem");
    for (provider, ca_file, why) in [
        (&provider, None, "certificate"),
        (&provider, Some(stranger.path("ca.pem")), "certificate"),
        (&outdated, Some(ca_file), "ProtocolVersion"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let variables: Vec<(&str, &str)> =
            ca_file.iter().map(|path| ("OAUTH2_CA_FILE", path.as_str())).collect();
        let service = provider.service_with(folder.path(), &variables);
        let token = message(&json!({"alg": "RS256", "kid": "rsa-1"}), &json!({})) + ".AA";
        processes(&service, &token).expect(503);
        let (state, detail) = keys(&service);
        assert_eq!(state, "degraded");
        assert!(detail.contains(why), "{detail}");
        service.stop();
    }
}
