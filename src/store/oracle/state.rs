//! How the state of a process is kept in a CLOB: its bytes as base64. This module is the way there and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::domain::process::State;
use crate::store::{Result, StoreError};

pub(super) fn encode(state: &State) -> String {
    STANDARD.encode(state.to_bytes())
}

/// # Errors
/// [`StoreError::Corrupt`]: somebody else wrote to the column, or a newer program.
pub(super) fn decode(digest: &str) -> Result<State> {
    let corrupt = |problem: String| StoreError::Corrupt {
        what: format!("process_live_status.state_digest is none of this program's: {problem}"),
    };
    let bytes = STANDARD.decode(digest.trim()).map_err(|error| corrupt(error.to_string()))?;
    State::from_bytes(&bytes).map_err(|error| corrupt(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_and_anything_else_is_refused() {
        let state = State::default();
        assert_eq!(decode(&encode(&state)).unwrap(), state);
        assert_eq!(decode(&format!("{}\n", encode(&state))).unwrap(), state);
        for bad in ["", "!", "AAAA", "/w=="] {
            assert!(matches!(decode(bad), Err(StoreError::Corrupt { .. })), "{bad:?}");
        }
    }
}
