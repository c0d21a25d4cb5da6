//! How the state of a process is kept in a CLOB: its bytes as base64. This module is the way there and back.
//!
//! Many instances and people with rights of their own write to one schema, so a digest that cannot be read is the
//! trouble of its process alone: its row is shown by its columns, its events are set aside, and nobody judges its
//! silence. Only what a newer program has written ends an instance, before it undoes any of that.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::process::State;
use crate::store::StoreError;

/// Why a digest cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// Somebody else wrote to the column.
    Damaged(String),
    /// A newer program did.
    Newer(String),
}

impl Unreadable {
    /// What to do about the row of a process.
    pub(super) fn words(&self, process: &str) -> String {
        match self {
            Self::Damaged(problem) => format!(
                "process_live_status.state_digest of {process} is none of this program's ({problem}); set it to NULL: \
                 then it begins anew, and dead letters hold what was set aside"
            ),
            Self::Newer(problem) => format!(
                "process_live_status.state_digest of {process} was written by a newer release ({problem}); upgrade \
                 this instance"
            ),
        }
    }

    /// The error of who must read it. A damaged one is refused for good.
    pub(super) fn into_error(self, call: &'static str, process: &str) -> StoreError {
        let words = self.words(process);
        match self {
            Self::Damaged(_) => StoreError::Refused { call, source: words.into() },
            Self::Newer(_) => StoreError::Corrupt { what: words },
        }
    }
}

pub(super) fn encode(state: &State) -> String {
    STANDARD.encode(state.to_bytes())
}

pub(super) fn decode(digest: &str) -> Result<State, Unreadable> {
    let bytes = STANDARD.decode(digest.trim());
    let bytes = bytes.map_err(|error| Unreadable::Damaged(error.to_string()))?;
    State::from_bytes(&bytes).map_err(|error| {
        let problem = error.to_string();
        if error.is_newer() { Unreadable::Newer(problem) } else { Unreadable::Damaged(problem) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_and_anything_else_is_refused() {
        let state = State::default();
        assert_eq!(decode(&encode(&state)).unwrap(), state);
        assert_eq!(decode(&format!("{}\n", encode(&state))).unwrap(), state);
        for bad in ["", "!", "AAAA", "AQ=="] {
            assert!(matches!(decode(bad), Err(Unreadable::Damaged(_))), "{bad:?}");
        }
        assert!(matches!(decode("/w=="), Err(Unreadable::Newer(_))));
    }
}
