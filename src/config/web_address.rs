//! An address that we call over the network. This module decides which ones may be called at all.

use std::fmt;
use std::net::IpAddr;

use ureq::http::Uri;

/// `https://…`, or `http://…` to loopback: nothing else is ever called, because an answer that a stranger can
/// change on its way decides who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebAddress {
    text: String,
    host: String,
    loopback: bool,
}

/// Why a text is not an address that may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebAddressError {
    #[error("is not an address such as https://id.example.com/realms/main")]
    Malformed,
    #[error("must begin with https:// (http:// is for loopback only)")]
    Plaintext,
    #[error("must not hold a user name or password")]
    Credentials,
    #[error("must not hold a fragment")]
    Fragment,
}

impl WebAddress {
    /// Takes `text` if it is an address that may be called.
    ///
    /// # Errors
    /// [`WebAddressError`] names the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, WebAddressError> {
        if text.contains('#') {
            return Err(WebAddressError::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| WebAddressError::Malformed)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(WebAddressError::Malformed);
        };
        if authority.as_str().contains('@') {
            return Err(WebAddressError::Credentials);
        }
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() {
            return Err(WebAddressError::Malformed);
        }
        let loopback = is_loopback(&host);
        if !(scheme == "https" || scheme == "http" && loopback) {
            return Err(WebAddressError::Plaintext);
        }
        Ok(Self { text: text.to_string(), host, loopback })
    }

    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host in small letters, without the port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether the address is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }
}

impl fmt::Display for WebAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_is_called_anywhere_and_http_on_loopback_only() {
        for good in [
            "https://id.example.com/realms/main",
            "https://id.example.com:8443",
            "http://localhost:8080/x",
            "http://127.0.0.1:1/",
            "http://[::1]:1/",
        ] {
            assert!(WebAddress::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("http://id.example.com", WebAddressError::Plaintext),
            ("http://localhost.example.com", WebAddressError::Plaintext),
            ("ftp://127.0.0.1/", WebAddressError::Plaintext),
            ("file:///etc/passwd", WebAddressError::Malformed),
            ("id.example.com", WebAddressError::Malformed),
            ("", WebAddressError::Malformed),
            ("https://", WebAddressError::Malformed),
            ("https://a:b@id.example.com/", WebAddressError::Credentials),
            ("http://localhost@id.example.com/", WebAddressError::Credentials),
            ("https://id.example.com/#x", WebAddressError::Fragment),
        ] {
            assert_eq!(WebAddress::parse(bad), Err(why), "{bad}");
        }
    }
}
