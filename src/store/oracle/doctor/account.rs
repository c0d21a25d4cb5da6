//! Until when the account of the service is good. This module asks for it and judges.

use super::super::bind;
use super::super::sql::statement;
use super::Look;
use crate::domain::time::Timestamp;
use crate::store::doctor::{Check, Finding, judge_expiry};

const PASSWORD: Check = Check::new(
    "password",
    "once it has expired no session can be opened, and open ones end with the hour",
);

pub(super) fn examine(look: &Look<'_>) -> Vec<Finding> {
    let seen = look.ask(PASSWORD, "", statement!("doctor_account"), &[], |row| {
        Ok((
            bind::text(row, "username")?,
            bind::text(row, "account_status")?,
            bind::optional_time(row, "expires_at")?,
        ))
    });
    vec![match seen.map(|seen| seen.into_iter().next()) {
        Ok(Some((user, status, expires_at))) => judge(&user, &status, expires_at, look.now()),
        Ok(None) => PASSWORD.unknown("not judged: the database does not tell of this user"),
        Err(finding) => finding,
    }]
}

fn judge(user: &str, status: &str, expires_at: Option<Timestamp>, now: Timestamp) -> Finding {
    let how = format!(
        "ALTER USER {user} IDENTIFIED BY \"a new password\";   -- the same into ORACLE_PASSWORD_FILE or wallet"
    );
    if status.contains("EXPIRED") || status.contains("LOCKED") {
        return PASSWORD.fail(format!("the account {user} is {status}"), how);
    }
    let Some(expires_at) = expires_at else {
        return PASSWORD.ok(format!("the account {user} is {status}, without an end"));
    };
    let seconds = |at: Timestamp| at.micros() / 1_000_000;
    judge_expiry(
        PASSWORD,
        &format!("the password of {user}"),
        seconds(expires_at),
        seconds(now),
        &how,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;

    #[test]
    fn a_password_is_judged_by_its_end_and_by_the_accounts_state() {
        let at = |day: i64| Timestamp::from_micros(day * 24 * 3600 * 1_000_000);
        let table = [
            (judge("S", "OPEN", None, at(100)), Verdict::Ok),
            (judge("S", "OPEN", Some(at(200)), at(100)), Verdict::Ok),
            (judge("S", "OPEN", Some(at(103)), at(100)), Verdict::Warn),
            (judge("S", "OPEN", Some(at(99)), at(100)), Verdict::Fail),
            (judge("S", "EXPIRED(GRACE)", Some(at(105)), at(100)), Verdict::Fail),
        ];
        for (finding, wanted) in table {
            assert_eq!(finding.verdict, wanted, "{finding:?}");
            let is_named = finding.mend.is_some_and(|how| how.starts_with("ALTER USER S "));
            assert_eq!(is_named, wanted > Verdict::Unknown);
        }
    }
}
