//! Which port speaks TLS, with which files. This module reads those settings and tries the files, so that a service
//! with a wrong certificate never starts.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::problems::Warning;
use super::raw::Surroundings;
use super::reader::Reader;
use super::variables::NONE;
use crate::certificates::{ClientAuth, Part, ServerFiles, Validity, load};

/// A certificate that ends within so many days is pointed out at the start.
const ENDS_SOON_DAYS: i64 = 14;
const DAY_S: i64 = 24 * 3600;
const API: [&str; 3] =
    ["SENTINEL_TLS_CERT_FILE", "SENTINEL_TLS_KEY_FILE", "SENTINEL_TLS_CLIENT_CA_FILE"];
const METRICS: [&str; 3] = [
    "SENTINEL_METRICS_TLS_CERT_FILE",
    "SENTINEL_METRICS_TLS_KEY_FILE",
    "SENTINEL_METRICS_TLS_CLIENT_CA_FILE",
];

/// The files of the ports. None: plaintext.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    pub api: Option<ServerFiles>,
    pub metrics: Option<ServerFiles>,
}

impl Tls {
    /// Whether the API asks its clients for certificates, so that some routes can demand one.
    pub fn client_auth(&self) -> ClientAuth {
        self.api.as_ref().map_or(ClientAuth::Off, |files| files.client_auth)
    }
}

/// `tried`: the files are of use in this mode, and must be good.
pub(super) fn tls(
    reader: &mut Reader<'_>,
    surroundings: &Surroundings<'_>,
    tried: bool,
    warnings: &mut Vec<Warning>,
) -> Tls {
    let mut path = |name, default| reader.text(name, default).map(PathBuf::from);
    let [certificate, key, client_ca] = API.map(|name| path(name, NONE));
    let [own_certificate, own_key, own_ca] = METRICS.map(|name| path(name, "the API's"));
    let words = [
        ("off", ClientAuth::Off),
        ("optional", ClientAuth::Optional),
        ("required", ClientAuth::Required),
    ];
    let asked = reader.word("SENTINEL_TLS_CLIENT_AUTH", "optional once a CA is set", &words);
    if !tried {
        return Tls::default();
    }
    let api = both(reader, [API[0], API[1]], certificate, key);
    if client_ca.is_none() && matches!(asked, Some(ClientAuth::Optional | ClientAuth::Required)) {
        reader.problem(
            "SENTINEL_TLS_CLIENT_AUTH",
            "needs to know who may sign: set SENTINEL_TLS_CLIENT_CA_FILE, or unset it",
        );
    }
    if client_ca.is_some() && !reader.is_given(API[0]) {
        reader
            .problem(API[2], "means nothing without TLS; set SENTINEL_TLS_CERT_FILE, or unset it");
    }
    let metrics = match both(reader, [METRICS[0], METRICS[1]], own_certificate, own_key) {
        Some(own) => Some(own),
        None => api.clone(),
    };
    if own_ca.is_some() && !reader.is_given(METRICS[0]) && !reader.is_given(API[0]) {
        reader.problem(
            METRICS[2],
            "means nothing without TLS; set SENTINEL_METRICS_TLS_CERT_FILE or SENTINEL_TLS_CERT_FILE, or unset it",
        );
    }
    let files = |(certificate, key), client_ca: Option<PathBuf>, client_auth| {
        let client_auth = if client_ca.is_some() { client_auth } else { ClientAuth::Off };
        ServerFiles { certificate, key, client_ca, client_auth }
    };
    let has_own_ca = own_ca.is_some();
    let metrics_ca = own_ca.or_else(|| client_ca.clone());
    let api = api.map(|pair| files(pair, client_ca, asked.unwrap_or(ClientAuth::Optional)));
    let has_own_pair = reader.is_given(METRICS[0]);
    let metrics = metrics.map(|pair| files(pair, metrics_ca, ClientAuth::Required));
    if let Some(files) = &api {
        check(reader, surroundings, files, API, warnings);
    }
    if let Some(files) = &metrics {
        // What is only inherited has been tried already, and is blamed by its own name if it has not.
        let names = [
            if has_own_pair { METRICS[0] } else { API[0] },
            if has_own_pair { METRICS[1] } else { API[1] },
            if has_own_ca { METRICS[2] } else { API[2] },
        ];
        check(reader, surroundings, files, names, warnings);
    }
    Tls { api, metrics }
}

/// The certificate and its key, which mean something only together.
fn both(
    reader: &mut Reader<'_>,
    names: [&'static str; 2],
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> Option<(PathBuf, PathBuf)> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => return Some((certificate, key)),
        (Some(_), None) => {
            reader.problem(names[0], format!("needs its private key; set {}", names[1]))
        }
        (None, Some(_)) => {
            reader.problem(names[1], format!("needs its certificate; set {}", names[0]))
        }
        (None, None) => {}
    }
    None
}

/// Tries the files. What is wrong with one is said once, under the variable that names it.
fn check(
    reader: &mut Reader<'_>,
    surroundings: &Surroundings<'_>,
    files: &ServerFiles,
    names: [&'static str; 3],
    warnings: &mut Vec<Warning>,
) {
    match load(files, surroundings.read_file) {
        Ok(loaded) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            if let Some(what) = lifetime(&files.certificate, loaded.validity, now_s) {
                let warning = Warning { name: names[0].to_string(), what };
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
        Err(flaws) => {
            for flaw in flaws {
                let name = match flaw.part {
                    Part::Certificate => names[0],
                    Part::Key => names[1],
                    Part::ClientCa => names[2],
                };
                if !reader
                    .problems
                    .0
                    .iter()
                    .any(|known| known.name == name && known.what == flaw.what)
                {
                    reader.problem(name, flaw.what);
                }
            }
        }
    }
}

/// What clients will say about the certificate before long, if they say it.
fn lifetime(path: &Path, validity: Validity, now_s: i64) -> Option<String> {
    let path = path.display();
    let left_s = validity.not_after_s - now_s;
    if left_s < 0 {
        Some(format!("the certificate in {path} has expired; clients will refuse it: renew it"))
    } else if now_s < validity.not_before_s {
        Some(format!(
            "the certificate in {path} is not good yet; clients will refuse it: check the clock"
        ))
    } else if left_s < ENDS_SOON_DAYS * DAY_S {
        Some(format!("the certificate in {path} expires in {} days: renew it", left_s / DAY_S))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_clients_will_refuse_is_pointed_out() {
        let validity = Validity { not_before_s: 1000 * DAY_S, not_after_s: 2000 * DAY_S };
        let said =
            |day: i64| lifetime(Path::new("c.pem"), validity, day * DAY_S).unwrap_or_default();
        assert_eq!(
            said(999),
            "the certificate in c.pem is not good yet; clients will refuse it: check the clock"
        );
        assert_eq!(said(1500), "");
        assert_eq!(said(1990), "the certificate in c.pem expires in 10 days: renew it");
        assert_eq!(
            said(2001),
            "the certificate in c.pem has expired; clients will refuse it: renew it"
        );
    }
}
