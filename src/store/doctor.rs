//! What a look at a store has found, check by check. This module is the shape that every backend reports in, so that
//! judging (facts to findings) is apart from gathering, and one check that fails keeps none of the others from running.

use serde::Serialize;

/// How one check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Fine,
    /// It cannot be seen from here, or there is nothing to see yet.
    Unknown,
    /// Somebody must mend it.
    Mend,
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// The command or statement that mends it, ready to paste.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    pub fn fine(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fine, found: found.into(), mend: None }
    }

    pub fn unknown(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Unknown, found: found.into(), mend: None }
    }

    pub fn mend(check: &'static str, found: impl Into<String>, how: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Mend, found: found.into(), mend: Some(how.into()) }
    }
}
