//! The certificates that we show and the authorities that we trust. This module turns PEM files into what rustls
//! works with, and says for each file what is wrong with it and what to do.
//!
//! TLS is 1.3 only. Sessions are never resumed: every connection proves its certificate anew, against the authority
//! of this minute, and no session waits in memory for a client that may not come back. Clients keep their connections,
//! so a handshake is rare.

mod identity;
mod peer;
mod x509;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use identity::ServerIdentity;
pub use peer::{PeerCertificate, Thumbprint};
pub use x509::{Validity, thumbprint};

/// The only protocol spoken inside.
const PROTOCOL: &[u8] = b"http/1.1";

/// Whether clients are asked for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    Off,
    /// One may be shown, and one that is shown must be good.
    Optional,
    /// Without a good one there is no connection.
    Required,
}

/// The files of one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub client_ca: Option<PathBuf>,
    pub client_auth: ClientAuth,
}

impl ServerFiles {
    /// The files that are read.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let client_ca = self.client_ca.as_deref().filter(|_| self.client_auth != ClientAuth::Off);
        [self.certificate.as_path(), self.key.as_path()].into_iter().chain(client_ca)
    }
}

/// Which file a flaw is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Certificate,
    Key,
    ClientCa,
}

/// What is wrong with a file, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Flaw {
    pub part: Part,
    pub what: String,
}

/// The files of one port, understood.
#[derive(Debug)]
pub struct Loaded {
    pub server: Arc<ServerConfig>,
    /// When the certificate that we show is good.
    pub validity: Validity,
}

/// Reads a text file.
pub type ReadFile<'r> = &'r dyn Fn(&Path) -> io::Result<String>;

/// Reads and checks the files of one port.
///
/// # Errors
/// With everything that is wrong, at once.
pub fn load(files: &ServerFiles, read: ReadFile<'_>) -> Result<Loaded, Vec<Flaw>> {
    let mut flaws = Vec::new();
    let mut text = |part, path: &Path| {
        read(path)
            .map_err(|error| {
                let what = format!(
                    "cannot read {}: {error}; name a file that the service may read",
                    path.display()
                );
                flaws.push(Flaw { part, what });
            })
            .ok()
    };
    let chain = text(Part::Certificate, &files.certificate);
    let key = text(Part::Key, &files.key);
    let roots = match (files.client_auth, &files.client_ca) {
        (ClientAuth::Off, _) | (_, None) => None,
        (ClientAuth::Optional | ClientAuth::Required, Some(path)) => text(Part::ClientCa, path),
    };
    let chain = chain.and_then(|pem| {
        kept(certificates(&files.certificate, &pem), Part::Certificate, &mut flaws)
    });
    let key = key.and_then(|pem| kept(private_key(&files.key, &pem), Part::Key, &mut flaws));
    let path = files.client_ca.as_deref().unwrap_or_else(|| Path::new(""));
    let roots = roots.and_then(|pem| kept(authorities(path, &pem), Part::ClientCa, &mut flaws));
    let certified = match (chain, key) {
        (Some(chain), Some(key)) => kept(certified(files, chain, key), Part::Key, &mut flaws),
        _ => None,
    };
    let verifier = match roots {
        Some(roots) => {
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), ring());
            let builder = if files.client_auth == ClientAuth::Optional {
                builder.allow_unauthenticated()
            } else {
                builder
            };
            let built = builder
                .build()
                .map(Some)
                .map_err(|error| format!("{} holds no usable authority: {error}", path.display()));
            kept(built, Part::ClientCa, &mut flaws)
        }
        None => Some(None),
    };
    let (Some((certified, validity)), Some(verifier)) = (certified, verifier) else {
        return Err(flaws);
    };
    if !flaws.is_empty() {
        return Err(flaws);
    }
    let builder = ServerConfig::builder_with_provider(ring())
        .with_protocol_versions(&[&TLS13])
        .expect("ring knows TLS 1.3");
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Loaded { server: Arc::new(server), validity })
}

/// Keeps what is good and notes what is not.
fn kept<T>(result: Result<T, String>, part: Part, flaws: &mut Vec<Flaw>) -> Option<T> {
    result.map_err(|what| flaws.push(Flaw { part, what })).ok()
}

fn ring() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path, pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(format!("{} holds no certificate; name a PEM file", path.display())),
        Err(error) => Err(format!("{} is no good PEM file: {error}", path.display())),
    }
}

fn private_key(path: &Path, pem: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
        let sealed =
            if pem.contains("ENCRYPTED") { " (an encrypted one cannot be used)" } else { "" };
        format!(
            "{} holds no private key{sealed}; name a PEM file with a PKCS#8, PKCS#1 or SEC1 key",
            path.display()
        )
    })
}

fn authorities(path: &Path, pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|error| {
            format!("{} holds a certificate that is no authority: {error}", path.display())
        })?;
    }
    Ok(roots)
}

/// The chain with its key, if they belong together.
fn certified(
    files: &ServerFiles,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<(CertifiedKey, Validity), String> {
    let (certificate, key_path) = (files.certificate.display(), files.key.display());
    let validity = Validity::of(&chain[0]).ok_or_else(|| {
        format!("the first certificate of {certificate} says not when it is good")
    })?;
    match CertifiedKey::from_der(chain, key, &ring()) {
        Ok(certified) => Ok((certified, validity)),
        Err(rustls::Error::InconsistentKeys(_)) => Err(format!(
            "{key_path} is not the key of the first certificate in {certificate}; name the files that were made together"
        )),
        Err(error) => {
            Err(format!("{key_path} cannot be used: {error}; an ECDSA P-256 key is best"))
        }
    }
}

/// Subject and times of every certificate in `pem` that can be read; keys and anything else are passed over.
pub fn validities(pem: &[u8]) -> Vec<(String, Validity)> {
    let read = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    read.filter_map(|der| Some((x509::subject(&der), Validity::of(&der)?))).collect()
}

/// A certificate of our own and its key, for commands that must show one.
pub struct ClientPair {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// The key as it was written.
    pub key_pem: String,
}

/// Reads the certificate that a client command shows, and its key.
///
/// # Errors
/// When one of the files cannot be used, or they do not belong together.
pub fn client_pair(certificate: &Path, key: &Path) -> anyhow::Result<ClientPair> {
    let text = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let chain = certificates(certificate, &text(certificate)?).map_err(anyhow::Error::msg)?;
    let key_pem = text(key)?;
    let secret = private_key(key, &key_pem).map_err(anyhow::Error::msg)?;
    let files = ServerFiles {
        certificate: certificate.to_path_buf(),
        key: key.to_path_buf(),
        client_ca: None,
        client_auth: ClientAuth::Off,
    };
    certified(&files, chain.clone(), secret.clone_key()).map_err(anyhow::Error::msg)?;
    Ok(ClientPair { chain, key: secret, key_pem })
}

/// What a client that does its own talking needs: whom it trusts, and what it shows.
///
/// # Errors
/// When an authority cannot be used.
pub fn client_config<'c>(
    authorities: impl IntoIterator<Item = &'c [u8]>,
    pair: Option<ClientPair>,
) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let (_, _unusable) =
        roots.add_parsable_certificates(authorities.into_iter().map(|der| der.to_vec().into()));
    let builder = ClientConfig::builder_with_provider(ring())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots);
    let mut config = match pair {
        Some(pair) => builder.with_client_auth_cert(pair.chain, pair.key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests;
