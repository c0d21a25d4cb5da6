//! Who vouches for callers: an identity provider, or our own key on a development machine. This module decides
//! which, and refuses development mode wherever something looks like production.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::raw::{RawConfig, Surroundings};
use super::reader::Reader;
use super::variables::NONE;
use super::web_address::{WebAddress, WebAddressError};

/// More audiences than this are a mistake.
const AUDIENCES_MAX: usize = 32;
const SET_ISSUER: &str = "set OAUTH2_ISSUER_URI to your identity provider";
/// What is said of a setting that no development machine has.
pub(super) const RULES_OUT_DEVELOPMENT: &str =
    "rules out development mode; set OAUTH2_ISSUER_URI to your identity provider, or unset it";

/// Who vouches for callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Our own key in the data folder. Loopback only.
    Development,
    /// An identity provider.
    Provider(Provider),
}

/// An identity provider and what we expect of its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// What `iss` must be, letter by letter.
    pub issuer: WebAddress,
    /// Where the keys are, when that is not to be discovered.
    pub jwk_set: Option<WebAddress>,
    /// A token must name one of these in `aud`.
    pub audience: Vec<String>,
    pub ca_file: Option<PathBuf>,
}

pub(super) fn mode(reader: &mut Reader<'_>, surroundings: &Surroundings<'_>) -> Mode {
    let issuer = reader.text("OAUTH2_ISSUER_URI", NONE);
    let jwk_set = reader.text("OAUTH2_JWK_SET_URI", "from the issuer's discovery document");
    let audience = reader.text_or_default("OAUTH2_AUDIENCE");
    let ca_file = reader.text("OAUTH2_CA_FILE", "system roots").map(PathBuf::from);
    let Some(issuer) = issuer else {
        for name in ["OAUTH2_JWK_SET_URI", "OAUTH2_AUDIENCE", "OAUTH2_CA_FILE"] {
            if reader.is_given(name) {
                reader.problem(name, format!("means nothing without an issuer; {SET_ISSUER}"));
            }
        }
        return Mode::Development;
    };
    let audience: Vec<String> = audience
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(String::from)
        .collect();
    if audience.is_empty() || audience.len() > AUDIENCES_MAX {
        reader.problem(
            "OAUTH2_AUDIENCE",
            format!(
                "names {} audiences; name 1 to {AUDIENCES_MAX}, separated by commas",
                audience.len()
            ),
        );
    }
    if let Some(path) = &ca_file {
        check_certificates(reader, "OAUTH2_CA_FILE", path, surroundings);
    }
    let jwk_set = jwk_set.and_then(|text| match WebAddress::parse(&text) {
        Ok(address) => Some(address),
        Err(error) => {
            reader.problem("OAUTH2_JWK_SET_URI", refusal(&text, error));
            None
        }
    });
    match WebAddress::parse(&issuer) {
        Ok(_) if issuer.contains('?') => {
            reader.problem("OAUTH2_ISSUER_URI", format!("{issuer:?} must not hold a query"));
        }
        Ok(issuer) => return Mode::Provider(Provider { issuer, jwk_set, audience, ca_file }),
        Err(error) => reader.problem("OAUTH2_ISSUER_URI", refusal(&issuer, error)),
    }
    // The problem above ends the start; what follows only looks for further problems.
    let nobody = WebAddress::parse("https://invalid").expect("it is an address");
    Mode::Provider(Provider { issuer: nobody, jwk_set, audience, ca_file })
}

/// Repeats the address, unless that would print a password.
pub(super) fn refusal(text: &str, error: WebAddressError) -> String {
    if text.contains('@') { error.to_string() } else { format!("{text:?} {error}") }
}

pub(super) fn check_certificates(
    reader: &mut Reader<'_>,
    name: &'static str,
    path: &Path,
    surroundings: &Surroundings<'_>,
) {
    match (surroundings.read_file)(path) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => {}
        Ok(_) => reader
            .problem(name, format!("{} holds no certificate; name a PEM file", path.display())),
        Err(error) => reader.problem(
            name,
            format!(
                "cannot read {}: {error}; name a file that the service may read",
                path.display()
            ),
        ),
    }
}

/// Development mode trusts a key that lies in the data folder, so every sign of production rules it out.
pub(super) fn refuse_development_in_production(
    reader: &mut Reader<'_>,
    raw: &RawConfig,
    address: IpAddr,
) {
    if !address.is_loopback() {
        let what = format!(
            "{address} is not loopback, and without an issuer this is development mode; {SET_ISSUER}, or listen on 127.0.0.1"
        );
        match &raw.bind {
            Some(_) => reader.problems.add("--bind", what),
            None => reader.problem("SENTINEL_LISTEN_ADDRESS", what),
        }
    }
    for name in [
        "ORACLE_TNS_NAME",
        "ORACLE_HOST",
        "SENTINEL_TLS_CERT_FILE",
        "SENTINEL_TLS_KEY_FILE",
        "SENTINEL_TLS_CLIENT_CA_FILE",
        "SENTINEL_METRICS_TLS_CERT_FILE",
        "SENTINEL_METRICS_TLS_KEY_FILE",
        "SENTINEL_METRICS_TLS_CLIENT_CA_FILE",
    ] {
        if reader.is_given(name) {
            reader.problem(name, RULES_OUT_DEVELOPMENT);
        }
    }
    for name in ["NOTIFY_SOCKET", "KUBERNETES_SERVICE_HOST"] {
        if raw.surrounding(name).is_some() {
            reader.problems.add(
                name,
                format!("is set, so this is no development machine, and there is no issuer; {SET_ISSUER}"),
            );
        }
    }
}
