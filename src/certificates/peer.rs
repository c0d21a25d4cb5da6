//! Who is at the other end, by the certificate that it has proven. This module holds what of it is of use: a name for
//! the log, and the thumbprint that a token may be bound to.

use std::fmt;

use rustls_pki_types::CertificateDer;

use super::x509;

/// The SHA-256 digest of a certificate.
pub type Thumbprint = [u8; 32];

/// A certificate that the handshake has verified. It stands in for no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    subject: String,
    thumbprint: Thumbprint,
}

impl PeerCertificate {
    /// Looks into a certificate that has been verified.
    pub(crate) fn verified(der: &CertificateDer<'_>) -> Self {
        Self { subject: x509::subject(der), thumbprint: x509::thumbprint(der) }
    }

    /// Its subject for people: bounded, and without anything that could forge a line of a log.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What a token that is bound to it names as `cnf.x5t#S256` (RFC 8705, 3.1).
    pub fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }
}

impl fmt::Display for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject)
    }
}
