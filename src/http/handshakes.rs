//! Why TLS handshakes came to nothing. This module sorts the reasons into a small fixed set and counts them over all
//! loops, because a reason is a metric's label and anybody at all can cause one.

use std::sync::atomic::{AtomicU64, Ordering};

use rustls::{CertificateError, Error};

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It took longer than [`super::limits::Limits::handshake_time`].
    Timeout,
    /// A certificate is required, and the peer has shown none.
    NoCertificate,
    /// Somebody else than our client authority has signed the certificate that was shown.
    UnknownIssuer,
    /// The certificate that was shown is no good in another way: expired, for another use, not signed as it says.
    BadCertificate,
    /// The peer has given up with an alert: mostly it does not trust our certificate.
    Alert,
    /// What came is not TLS 1.3 as we speak it: older TLS, plain HTTP, garbage.
    Protocol,
    /// The peer has closed or reset the connection.
    Closed,
}

impl Fault {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Timeout,
        Self::NoCertificate,
        Self::UnknownIssuer,
        Self::BadCertificate,
        Self::Alert,
        Self::Protocol,
        Self::Closed,
    ];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::NoCertificate => "no_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadCertificate => "bad_certificate",
            Self::Alert => "alert",
            Self::Protocol => "protocol",
            Self::Closed => "closed",
        }
    }

    /// What rustls gave up for.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => Self::UnknownIssuer,
            Error::InvalidCertificate(_) => Self::BadCertificate,
            Error::AlertReceived(_) => Self::Alert,
            _ => Self::Protocol,
        }
    }
}

/// How often each was the reason.
#[derive(Debug, Default)]
pub struct Faults([AtomicU64; Fault::ALL.len()]);

impl Faults {
    pub(super) fn count(&self, fault: Fault) {
        self.0[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often this was the reason since the start.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_count_and_a_name_of_its_own() {
        let faults = Faults::default();
        for (times, fault) in (1..).zip(Fault::ALL) {
            for _ in 0..times {
                faults.count(fault);
            }
        }
        for (times, fault) in (1..).zip(Fault::ALL) {
            assert_eq!(faults.of(fault), times, "{fault:?}");
            let same = Fault::ALL.iter().filter(|other| other.as_str() == fault.as_str());
            assert_eq!(same.count(), 1, "{fault:?}");
        }
    }

    #[test]
    fn a_certificate_is_told_from_a_protocol() {
        let certificate = |error| Fault::of(&Error::InvalidCertificate(error));
        assert_eq!(certificate(CertificateError::UnknownIssuer), Fault::UnknownIssuer);
        assert_eq!(certificate(CertificateError::Expired), Fault::BadCertificate);
        assert_eq!(Fault::of(&Error::NoCertificatesPresented), Fault::NoCertificate);
        let alert = Error::AlertReceived(rustls::AlertDescription::UnknownCA);
        assert_eq!(Fault::of(&alert), Fault::Alert);
        assert_eq!(Fault::of(&Error::DecryptError), Fault::Protocol);
    }
}
