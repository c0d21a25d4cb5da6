//! What a look at a store has found, check by check. This module is the shape that every backend reports in, so that
//! judging (facts to findings) is apart from gathering, and one check that fails keeps none of the others from running.

use serde::Serialize;

/// How one check came out, the worse the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It cannot be seen from here, or there is nothing to see yet.
    Unknown,
    /// It works, and somebody should mend it before it does not.
    Warn,
    /// Something does not work, or loses data.
    Fail,
}

/// What is looked at, and why.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    pub name: &'static str,
    /// Why it matters, in one sentence.
    pub why: &'static str,
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// Why it matters, in one sentence.
    pub why: &'static str,
    /// The command or statement that mends it, ready to paste.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Check {
    pub const fn new(name: &'static str, why: &'static str) -> Self {
        Self { name, why }
    }

    fn finding(self, verdict: Verdict, found: impl Into<String>, mend: Option<String>) -> Finding {
        Finding { check: self.name, verdict, found: found.into(), why: self.why, mend }
    }

    pub fn ok(self, found: impl Into<String>) -> Finding {
        self.finding(Verdict::Ok, found, None)
    }

    pub fn unknown(self, found: impl Into<String>) -> Finding {
        self.finding(Verdict::Unknown, found, None)
    }

    pub fn warn(self, found: impl Into<String>, how: impl Into<String>) -> Finding {
        self.finding(Verdict::Warn, found, Some(how.into()))
    }

    pub fn fail(self, found: impl Into<String>, how: impl Into<String>) -> Finding {
        self.finding(Verdict::Fail, found, Some(how.into()))
    }
}

impl Finding {
    /// The same with a statement that lets more be seen.
    #[must_use]
    pub fn with(self, how: impl Into<String>) -> Self {
        Self { mend: Some(how.into()), ..self }
    }
}

/// A certificate that ends within so many days is pointed out.
const ENDS_SOON_DAYS: i64 = 14;
const DAY_S: i64 = 24 * 3600;

/// Judges until when `what` is good. Times are seconds since 1970.
pub fn judge_expiry(check: Check, what: &str, end_s: i64, now_s: i64, how: &str) -> Finding {
    let left_s = end_s.saturating_sub(now_s);
    if left_s <= 0 {
        return check.fail(format!("{what} ended {} days ago", -left_s / DAY_S), how);
    }
    let found = format!("{what} is good for {} more days", left_s / DAY_S);
    if left_s < ENDS_SOON_DAYS * DAY_S { check.warn(found, how) } else { check.ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_verdict_is_the_last_and_an_end_is_told_two_weeks_before() {
        assert!(Verdict::Fail > Verdict::Warn && Verdict::Warn > Verdict::Unknown);
        assert!(Verdict::Unknown > Verdict::Ok);
        let check = Check::new("certificate", "because");
        for (left_days, wanted) in
            [(15, Verdict::Ok), (13, Verdict::Warn), (0, Verdict::Fail), (-3, Verdict::Fail)]
        {
            let finding = judge_expiry(check, "x", 1_000 + left_days * DAY_S, 1_000, "renew it");
            assert_eq!(finding.verdict, wanted, "{finding:?}");
            assert_eq!(finding.mend.is_some(), wanted != Verdict::Ok, "{finding:?}");
        }
    }
}
