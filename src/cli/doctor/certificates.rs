//! Until when the certificates are good that we show and that we trust. This module reads the files of the
//! configuration and judges each certificate in them.

use std::fs;
use std::path::Path;

use crate::certificates;
use crate::config::{Config, Mode};
use crate::http::auth::unix_seconds;
use crate::store::doctor::{Check, Finding, Verdict, judge_expiry};

const SHOWN: Check = Check::new(
    "certificate",
    "once it has ended no client that checks certificates connects any more",
);
const TRUSTED: Check =
    Check::new("authority", "once an authority has ended, nobody whom it vouches for is believed");

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    const RENEW: &str = "# put a renewed one in place; it is read within two seconds, at once by: systemctl reload sentinel";
    const REPLACE: &str =
        "# put the new authority beside the old one into the same file; take the old one out later";
    let now_s = i64::try_from(unix_seconds()).unwrap_or(i64::MAX);
    let mut findings = Vec::new();
    let mut ports = vec![&config.tls.api];
    if config.metrics.is_some() && config.tls.metrics != config.tls.api {
        ports.push(&config.tls.metrics);
    }
    let mut authorities = Vec::new();
    for files in ports.into_iter().flatten() {
        findings.extend(judge_file(SHOWN, &files.certificate, now_s, RENEW));
        authorities.extend(files.client_ca.clone());
    }
    if let Mode::Provider(provider) = &config.mode {
        authorities.extend(provider.ca_file.clone());
    }
    authorities.extend(config.traces.as_ref().and_then(|traces| traces.ca_file.clone()));
    authorities.sort();
    authorities.dedup();
    for path in &authorities {
        findings.extend(judge_file(TRUSTED, path, now_s, REPLACE));
    }
    if findings.is_empty() {
        findings.push(SHOWN.ok("none is configured"));
    }
    findings
}

/// The certificate of a file that ends first.
fn judge_file(check: Check, path: &Path, now_s: i64, how: &str) -> Option<Finding> {
    let name = path.display();
    let pem = match fs::read(path) {
        Ok(pem) => pem,
        Err(error) => {
            return Some(
                check.fail(format!("cannot read {name}: {error}"), format!("ls -l '{name}'")),
            );
        }
    };
    let found = certificates::validities(&pem);
    let findings = found.iter().flat_map(|(subject, validity)| {
        let what = format!("{subject} in {name}");
        let begins = (validity.not_before_s > now_s).then(|| {
            check.fail(format!("{what} is not good yet"), "date   # is this clock right?")
        });
        [Some(judge_expiry(check, &what, validity.not_after_s, now_s, how)), begins]
    });
    let worst = findings.flatten().max_by_key(|finding| finding.verdict);
    worst.or_else(|| {
        let found = format!("{name} holds no certificate that can be read");
        Some(Finding {
            verdict: Verdict::Fail,
            ..check.warn(found, format!("openssl x509 -in '{name}' -noout -dates"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_of_a_file_that_is_worst_off_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain.pem");
        let pem = |name: &str, year: i32| {
            let mut params = rcgen::CertificateParams::new(vec![name.to_string()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
        };
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
        fs::write(&path, pem("leaf", 2040) + &pem("issuer", 2030)).unwrap();
        let judge = |now: &str| judge_file(SHOWN, &path, at(now), "renew").unwrap();
        assert_eq!(judge("2025-01-01T00:00:00Z").verdict, Verdict::Ok);
        assert_eq!(judge("2029-12-30T00:00:00Z").verdict, Verdict::Warn);
        let ended = judge("2031-01-01T00:00:00Z");
        assert!(ended.verdict == Verdict::Fail && ended.found.contains("CN=issuer"), "{ended:?}");
        assert!(judge("2019-01-01T00:00:00Z").found.contains("not good yet"));
        fs::write(&path, "nothing").unwrap();
        assert_eq!(judge("2025-01-01T00:00:00Z").verdict, Verdict::Fail);
        assert_eq!(judge_file(TRUSTED, Path::new("/none"), 0, "x").unwrap().verdict, Verdict::Fail);
    }
}
