//! Who is to blame for a failure that nobody understands. This module remembers which messages failed and what else has
//! gone well since.

use std::collections::BTreeMap;

use crate::store::Message;

/// Messages that failed and are remembered.
const KEPT_MAX: usize = 1000;

/// What is remembered of failures that nobody understands. Who is to blame, the message or the store, shows only when
/// others go through: a message that fails again while others did not is set aside, one that fails alone is given back.
#[derive(Debug, Default)]
pub struct Unclear {
    /// Messages that were settled so far.
    pub(super) settled: u64,
    /// How many were settled when a message, by its position, first failed.
    failed: BTreeMap<i64, u64>,
}

impl Unclear {
    pub(super) fn note_settled(&mut self, messages: &[Message]) {
        self.settled = self.settled.saturating_add(u64::try_from(messages.len()).unwrap_or(0));
        if !self.failed.is_empty() {
            messages.iter().for_each(|message| {
                self.failed.remove(&message.position());
            });
        }
    }

    /// Notes that a message failed, in a batch before which `before` had been settled. Returns whether others have gone
    /// through since it first did.
    pub(super) fn is_to_blame(&mut self, message: &Message, before: u64) -> bool {
        if self.failed.len() >= KEPT_MAX {
            self.failed.clear();
        }
        *self.failed.entry(message.position()).or_insert(before) < self.settled
    }
}
