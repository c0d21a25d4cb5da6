//! What goes wrong on the way to a service, in words that say what to check. This module makes them, and lets nothing
//! that came from outside be printed as it came: control characters are escaped.

use std::io;

/// What to check when nobody answers.
pub(super) const RUNNING_HINT: &str = "is it running, and is SENTINEL_URL its address?";
const TLS_HINT: &str = "is SENTINEL_CA_FILE the authority that signed the service's certificate, and does the service want one of yours (SENTINEL_CLIENT_CERT_FILE)?";

/// Why there is no answer, and what to check.
pub(super) fn unreachable(url: &str, error: &ureq::Error) -> anyhow::Error {
    let hint = match error {
        ureq::Error::HostNotFound => "is the host's name right?",
        ureq::Error::Tls(_) => TLS_HINT,
        ureq::Error::Rustls(error) => tls_hint(error),
        // What the other side says of a handshake that was over for us comes while we read its answer.
        ureq::Error::Io(error) => match of_tls(error) {
            Some(error) => tls_hint(error),
            // Whoever is refused for a certificate may find the connection gone before the reason is read.
            None if hung_up(error) && url.starts_with("https://") => TLS_HINT,
            None => RUNNING_HINT,
        },
        ureq::Error::Timeout(_) => "is a firewall in between, or is the service overloaded?",
        _ => RUNNING_HINT,
    };
    anyhow::anyhow!("cannot reach the service at {url}: {}; {hint}", escaped(&error.to_string()))
}

/// Somebody was there, and is no more.
fn hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// What of an error of a socket is an error of TLS.
pub(super) fn of_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What to check when TLS comes to nothing.
pub(super) fn tls_hint(error: &rustls::Error) -> &'static str {
    use rustls::AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, DecryptError, UnknownCA, UnsupportedCertificate,
    };
    match error {
        rustls::Error::AlertReceived(CertificateRequired) => {
            "the service wants a certificate: name one that it knows in SENTINEL_CLIENT_CERT_FILE, and its key in SENTINEL_CLIENT_KEY_FILE"
        }
        rustls::Error::AlertReceived(
            AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRevoked
            | CertificateUnknown
            | DecryptError
            | UnknownCA
            | UnsupportedCertificate,
        ) => {
            "the service refuses our certificate: is the one in SENTINEL_CLIENT_CERT_FILE signed by an authority that it knows, and in date?"
        }
        rustls::Error::InvalidCertificate(_) => {
            "is SENTINEL_CA_FILE the authority that signed the service's certificate, and is that one in date and made for the host in SENTINEL_URL?"
        }
        rustls::Error::InvalidMessage(_) => {
            "does the service speak TLS there? Without it SENTINEL_URL begins with http://"
        }
        _ => TLS_HINT,
    }
}

/// What the service answers instead of what was asked for, and what to check.
pub(super) fn refusal(status: u16, body: &str) -> String {
    let problem: Option<Problem> = serde_json::from_str(body).ok();
    let said = problem.and_then(|problem| problem.detail.or(problem.title));
    let said = said.map(|said| format!(": {}", escaped(&said))).unwrap_or_default();
    let hint = match status {
        401 => {
            " (the token is missing, has run out, or is from somebody else: check SENTINEL_TOKEN)"
        }
        403 => {
            " (the token is known but may not do this: it needs another role, or SENTINEL_CLIENT_CERT_FILE)"
        }
        404 => {
            " (nothing of that name for this token's tenant, or SENTINEL_URL is not the service)"
        }
        300..=399 => " (SENTINEL_URL is not the service itself; redirects are not followed)",
        _ => "",
    };
    format!("the service answers {status}{said}{hint}")
}

#[derive(serde::Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

/// `text` without anything that could move a cursor, change a colour or hide other text.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        let bidirectional = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter.is_control() || bidirectional {
            escaped.extend(letter.escape_default());
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_with_its_detail_and_what_to_check() {
        let words = refusal(401, r#"{"title":"Unauthorized","detail":"the token has run out"}"#);
        assert!(words.starts_with("the service answers 401: the token has run out"), "{words}");
        assert!(words.contains("SENTINEL_TOKEN"), "{words}");
        assert_eq!(refusal(500, "<html>"), "the service answers 500");
    }

    #[test]
    fn foreign_text_cannot_touch_the_terminal() {
        let words = refusal(400, r#"{"detail":"a\u001b[31mb\u0007c\u202ed"}"#);
        assert_eq!(words, r"the service answers 400: a\u{1b}[31mb\u{7}c\u{202e}d");
        assert_eq!(escaped("naïve ✓\n"), r"naïve ✓\n");
    }

    #[test]
    fn what_tls_says_is_told_with_what_to_check() {
        use rustls::{AlertDescription, CertificateError, InvalidMessage};
        let said = |error: rustls::Error| {
            let error = io::Error::new(io::ErrorKind::InvalidData, error);
            unreachable("https://a", &ureq::Error::Io(error)).to_string()
        };
        let alert = |alert| said(rustls::Error::AlertReceived(alert));
        assert!(alert(AlertDescription::CertificateRequired).contains("wants a certificate"));
        assert!(alert(AlertDescription::UnknownCA).contains("refuses our certificate"));
        assert!(alert(AlertDescription::HandshakeFailure).contains(TLS_HINT));
        let stranger = CertificateError::UnknownIssuer;
        assert!(said(rustls::Error::InvalidCertificate(stranger)).contains("is SENTINEL_CA_FILE"));
        let plain = InvalidMessage::InvalidContentType;
        assert!(said(rustls::Error::InvalidMessage(plain)).contains("begins with http://"));
        let gone = ureq::Error::Io(io::ErrorKind::BrokenPipe.into());
        assert!(unreachable("https://a", &gone).to_string().contains(TLS_HINT));
        assert!(unreachable("http://a", &gone).to_string().contains(RUNNING_HINT));
        let refused = ureq::Error::Io(io::ErrorKind::ConnectionRefused.into());
        assert!(unreachable("https://a", &refused).to_string().contains(RUNNING_HINT));
    }
}
