//! Where the keys come from. This module asks the identity provider: its discovery document names the key set, which
//! must live on the issuer's own host. Nothing is followed elsewhere, and no answer is read without a bound.
//!
//! What is called over TLS is called over TLS 1.3 and nothing older [SE3]; [`tls`] is how every client of ours is set up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, RootCerts, TlsConfig};

use crate::config::{Provider, WebAddress};

/// A key set is some kilobytes; a megabyte is an attack or a mistake.
const DOCUMENT_BYTES_MAX: u64 = 1024 * 1024;
/// For one answer, whole.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const WELL_KNOWN: &str = "/.well-known/openid-configuration";
/// Where distributions keep the certificates that the system trusts.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Fetches a key set document.
pub(super) trait KeySource: Send {
    /// The document, as sent.
    fn fetch(&self) -> anyhow::Result<Vec<u8>>;
}

/// The identity provider, over the network.
pub(super) struct WebSource {
    issuer: WebAddress,
    jwk_set: Option<WebAddress>,
    ca_file: Option<PathBuf>,
}

impl WebSource {
    /// Gets ready to ask `provider`.
    ///
    /// # Errors
    /// When the file with the provider's CA holds no certificate.
    pub(super) fn new(provider: &Provider) -> anyhow::Result<Self> {
        // Whether the CA can be read is to be known at the start, and not by the first token.
        roots(provider.ca_file.as_deref())?;
        Ok(Self {
            issuer: provider.issuer.clone(),
            jwk_set: provider.jwk_set.clone(),
            ca_file: provider.ca_file.clone(),
        })
    }

    /// The agent for one fetch. It is made anew each time, so that a renewed CA counts without a restart; between two
    /// fetches lie minutes, so there is no connection to be spared.
    fn agent(&self) -> anyhow::Result<Agent> {
        let config = Agent::config_builder()
            .tls_config(tls(self.ca_file.as_deref(), None)?)
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_WITHIN))
            .user_agent(concat!("process-sentinel/", env!("CARGO_PKG_VERSION")));
        Ok(config.build().new_agent())
    }

    fn get(agent: &Agent, address: &WebAddress) -> anyhow::Result<Vec<u8>> {
        let request = agent.get(address.as_str()).header("accept", "application/json").config();
        // A proxy has no way to our loopback.
        let request = if address.is_loopback() { request.proxy(None) } else { request };
        let mut response =
            request.build().call().with_context(|| format!("{address} does not answer"))?;
        let status = response.status().as_u16();
        ensure!(status == 200, "{address} answers {status}, not 200 (redirects are not followed)");
        response
            .body_mut()
            .with_config()
            .limit(DOCUMENT_BYTES_MAX)
            .read_to_vec()
            .with_context(|| format!("{address} does not answer within {DOCUMENT_BYTES_MAX} bytes"))
    }

    fn discover(&self, agent: &Agent) -> anyhow::Result<WebAddress> {
        let issuer = self.issuer.as_str();
        let address = WebAddress::parse(&format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/')))
            .with_context(|| format!("{issuer}{WELL_KNOWN}"))?;
        key_set_address(&Self::get(agent, &address)?, &self.issuer)
            .with_context(|| format!("{address}"))
    }
}

impl KeySource for WebSource {
    fn fetch(&self) -> anyhow::Result<Vec<u8>> {
        let agent = self.agent()?;
        match &self.jwk_set {
            Some(address) => Self::get(&agent, address),
            None => Self::get(&agent, &self.discover(&agent)?),
        }
    }
}

/// The address of the key set, if the document is the issuer's own and stays on its host.
fn key_set_address(document: &[u8], issuer: &WebAddress) -> anyhow::Result<WebAddress> {
    #[derive(Deserialize)]
    struct Document {
        issuer: String,
        jwks_uri: String,
    }
    let document: Document = serde_json::from_slice(document)
        .context("the discovery document does not name issuer and jwks_uri")?;
    ensure!(
        document.issuer == issuer.as_str(),
        "the discovery document is that of {:?}; OAUTH2_ISSUER_URI must be the same, letter by letter",
        document.issuer
    );
    let address = WebAddress::parse(&document.jwks_uri)
        .with_context(|| format!("jwks_uri {:?}", document.jwks_uri))?;
    ensure!(
        address.host() == issuer.host(),
        "the key set is on another host, {:?}; set OAUTH2_JWK_SET_URI if that is meant",
        address.host()
    );
    Ok(address)
}

/// How we call others over TLS: version 1.3 only, with these roots, and with a certificate of ours to show.
///
/// # Errors
/// When the file with the private CA holds no certificate.
pub(crate) fn tls(ca_file: Option<&Path>, shown: Option<ClientCert>) -> anyhow::Result<TlsConfig> {
    let mut provider = rustls::crypto::ring::default_provider();
    // ureq compiles 1.2 into rustls. Without a suite of 1.2 there is no handshake of 1.2.
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    // Without roots of its own, ureq panics at the first call.
    Ok(TlsConfig::builder()
        .root_certs(roots(ca_file)?)
        .client_cert(shown)
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .build())
}

/// Whom to trust: the private CA, else what the system trusts, else what is built in.
pub(crate) fn roots(ca_file: Option<&Path>) -> anyhow::Result<RootCerts> {
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let certificates = certificates(&pem);
        if certificates.is_empty() {
            bail!("{} holds no certificate", path.display());
        }
        return Ok(RootCerts::new_with_certs(&certificates));
    }
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let system = named.into_iter().chain(SYSTEM_ROOTS.map(PathBuf::from)).find_map(|path| {
        let certificates = certificates(&std::fs::read(path).ok()?);
        (!certificates.is_empty()).then_some(certificates)
    });
    Ok(system.map_or(RootCerts::WebPki, |certificates| RootCerts::new_with_certs(&certificates)))
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    CertificateDer::pem_slice_iter(pem)
        .filter_map(Result::ok)
        .map(|der| Certificate::from_der(&der).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn address(issuer: &str, jwks_uri: &str) -> Result<String, String> {
        let expected = WebAddress::parse("https://id.example.com/realms/main").unwrap();
        let document = json!({"issuer": issuer, "jwks_uri": jwks_uri}).to_string();
        key_set_address(document.as_bytes(), &expected)
            .map(|address| address.to_string())
            .map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_key_set_stays_on_the_issuers_host() {
        let issuer = "https://id.example.com/realms/main";
        address(issuer, "https://ID.example.com/keys?p=1").unwrap();
        for (issuer, jwks_uri, why) in [
            (issuer, "https://evil.example.com/keys", "another host"),
            (issuer, "https://id.example.com@evil.example.com/keys", "user name"),
            (issuer, "https://id.example.com.evil.example.com/keys", "another host"),
            (issuer, "http://id.example.com/keys", "https"),
            (issuer, "http://localhost/keys", "another host"),
            (issuer, "file:///etc/passwd", "address"),
            (issuer, "/keys", "address"),
            (
                "https://id.example.com/realms/other",
                "https://id.example.com/keys",
                "letter by letter",
            ),
        ] {
            let error = address(issuer, jwks_uri).unwrap_err();
            assert!(error.contains(why), "{issuer} {jwks_uri}: {error}");
        }
    }

    #[test]
    fn a_ca_file_without_a_certificate_is_refused_and_one_with_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "nothing").unwrap();
        roots(Some(&path)).unwrap_err();
        let ca = rcgen::generate_simple_self_signed(vec!["id.example.com".to_string()]).unwrap();
        std::fs::write(&path, ca.cert.pem()).unwrap();
        assert!(
            matches!(roots(Some(&path)), Ok(RootCerts::Specific(certificates)) if certificates.len() == 1)
        );
        roots(None).unwrap();
    }
}
