//! The wallet's folder: what is in it, who may read it, and until when its certificates are good. This module reads
//! PEM files (`ewallet.pem` and others); what only Oracle's tools open (`cwallet.sso`, `ewallet.p12`) is named with the
//! command that shows it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::super::address::{Address, Credentials};
use crate::certificates;
use crate::domain::time::Timestamp;
use crate::store::doctor::{Check, Finding, judge_expiry};

const WALLET: Check = Check::new(
    "wallet",
    "once it cannot be read or has expired no session is opened, and open ones end with the hour",
);
const CERTIFICATES: Check = Check::new(
    "wallet certificates",
    "an expired certificate ends every new TLS session with the database",
);

/// What opens a wallet without a question.
const OPEN_WALLET: &str = "cwallet.sso";

pub(super) fn examine(address: &Address, now: Timestamp) -> Vec<Finding> {
    let Some(folder) = &address.wallet else {
        return match address.credentials {
            Credentials::Password { .. } => vec![WALLET.ok("none is configured")],
            Credentials::Wallet => vec![
                WALLET
                    .unknown("not judged: sqlnet.ora in TNS_ADMIN says where it is")
                    .with("orapki wallet display -wallet FOLDER -complete   # the folder of WALLET_LOCATION"),
            ],
        };
    };
    let mut findings = vec![judge_folder(folder)];
    let mut judged = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == "pem" || end == "crt")
            && let Ok(pem) = fs::read(&path)
        {
            for (subject, validity) in certificates::validities(&pem) {
                judged += 1;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                findings.push(judge_expiry(
                    CERTIFICATES,
                    &format!("{subject} in {name}"),
                    validity.not_after_s,
                    now.micros() / 1_000_000,
                    "# put the renewed wallet from the DBA into ORACLE_WALLET_LOCATION; nothing is to be restarted",
                ));
            }
        }
    }
    let sealed: Vec<&str> = [OPEN_WALLET, "ewallet.p12"]
        .into_iter()
        .filter(|name| folder.join(name).is_file())
        .collect();
    if !sealed.is_empty() {
        let judged = if judged == 0 { "" } else { " beside the PEM files" };
        findings.push(
            CERTIFICATES
                .unknown(format!(
                    "not judged{judged}: only Oracle's tools open {}",
                    sealed.join(" and ")
                ))
                .with(format!("orapki wallet display -wallet '{}' -complete", folder.display())),
        );
    }
    findings
}

fn judge_folder(folder: &Path) -> Finding {
    let path = folder.display();
    let Ok(entries) = fs::read_dir(folder) else {
        return WALLET.fail(
            format!("{path} cannot be read"),
            format!("ls -ld '{path}'   # then: chown to the service's user, chmod 0500"),
        );
    };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let wallet =
        [OPEN_WALLET, "ewallet.pem"].into_iter().find(|name| names.iter().any(|own| own == name));
    let Some(wallet) = wallet else {
        return WALLET.fail(
            format!("{path} holds neither cwallet.sso nor ewallet.pem"),
            format!(
                "mkstore -wrl '{path}' -create && orapki wallet create -wallet '{path}' -auto_login"
            ),
        );
    };
    let file = folder.join(wallet);
    if let Err(error) = fs::File::open(&file) {
        return WALLET.fail(
            format!("{wallet} cannot be read: {error}"),
            format!("sudo chown \"$(id -u)\" '{0}' && chmod 0400 '{0}'", file.display()),
        );
    }
    let mode = fs::metadata(&file).map_or(0, |data| data.permissions().mode());
    if mode & 0o077 != 0 {
        let found = format!("{wallet} has mode {:o}: others may log in with it", mode & 0o777);
        return WALLET.warn(found, format!("chmod 0400 '{}'", file.display()));
    }
    WALLET.ok(format!("{path} holds {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;
    use crate::store::oracle::address::Given;

    fn address(folder: &Path) -> Address {
        let given = Given {
            target: Some("DB".into()),
            wallet: Some(folder.to_path_buf()),
            ..Given::default()
        };
        Address::from_settings(&given).unwrap()
    }

    fn verdicts(folder: &Path, now: Timestamp) -> Vec<(&'static str, Verdict)> {
        examine(&address(folder), now).iter().map(|it| (it.check, it.verdict)).collect()
    }

    #[test]
    fn what_can_be_read_is_judged_and_for_the_rest_there_is_a_command() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        let now = Timestamp::parse("2026-11-21T12:00:00Z").unwrap();
        assert_eq!(verdicts(place, now), [("wallet", Verdict::Fail)], "it is empty");
        let sso = place.join(OPEN_WALLET);
        fs::write(&sso, "sealed").unwrap();
        fs::set_permissions(&sso, fs::Permissions::from_mode(0o644)).unwrap();
        let sealed = ("wallet certificates", Verdict::Unknown);
        assert_eq!(verdicts(place, now), [("wallet", Verdict::Warn), sealed]);
        fs::set_permissions(&sso, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(verdicts(place, now), [("wallet", Verdict::Ok), sealed]);

        let mut params = rcgen::CertificateParams::new(vec!["client".to_string()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2026, 12, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem() + &key.serialize_pem();
        fs::write(place.join("ewallet.pem"), pem).unwrap();
        let of_pem = |verdict| [("wallet", Verdict::Ok), ("wallet certificates", verdict), sealed];
        assert_eq!(verdicts(place, now), of_pem(Verdict::Warn));
        let later = Timestamp::parse("2026-12-02T12:00:00Z").unwrap();
        assert_eq!(verdicts(place, later), of_pem(Verdict::Fail));
        let earlier = Timestamp::parse("2026-10-02T12:00:00Z").unwrap();
        assert_eq!(verdicts(place, earlier), of_pem(Verdict::Ok));
    }
}
