//! Answers about processes that were given before. This module keeps the text of `/status`, so that asking again for a
//! process that has not changed costs a look at two counters instead of a read, a merge and a new text.
//!
//! What must stay true: an answer is given again only while the store's [`Stamp`] of the process is the one that was
//! taken before the answer was read, so an acknowledged event is seen at once all the same; and only while time alone
//! has not made the process stale. What is kept is bounded in number and in bytes, and asked for by tenant and process.

use std::collections::HashMap;

use crate::domain::ids::TenantId;
use crate::domain::time::Timestamp;
use crate::store::{ProcessView, Stamp};

/// So many answers make a generation, and two of those are kept: the processes that a page of a dashboard shows, for
/// dozens of dashboards.
const GENERATION: usize = 2048;
/// A longer answer is not kept, which bounds what a thread keeps to some 10 MB. Most have 600 bytes.
const BODY_BYTES_MAX: usize = 2048;

/// An answer, as it was given.
pub(super) struct Answer {
    stamp: Stamp,
    stale_after: Option<Timestamp>,
    is_stale: bool,
    pub(super) body: Box<[u8]>,
    pub(super) tag: Box<str>,
}

/// The answers that one thread gave lately.
#[derive(Default)]
pub(super) struct Answers {
    /// Since this generation began.
    young: HashMap<Box<str>, Answer>,
    /// From the generation before. What is asked for again grows young again, the rest goes with the next change.
    old: HashMap<Box<str>, Answer>,
    /// The key at hand, so that a question makes no new text.
    key: String,
}

impl Answers {
    /// The answer about a process, if it still holds at `now`. `stamp` was taken just now.
    pub(super) fn find(
        &mut self,
        tenant: &TenantId,
        process: &str,
        stamp: Stamp,
        now: Timestamp,
    ) -> Option<&Answer> {
        write_key(&mut self.key, tenant, process);
        if !self.young.contains_key(self.key.as_str()) {
            let (key, answer) = self.old.remove_entry(self.key.as_str())?;
            self.insert(key, answer);
        }
        let answer = self.young.get(self.key.as_str())?;
        let is_stale = answer.stale_after.is_some_and(|last| now > last);
        (answer.stamp == stamp && answer.is_stale == is_stale).then_some(answer)
    }

    /// Keeps an answer that was just given at `now`. `stamp` was taken before the store was asked for `view`.
    pub(super) fn keep(
        &mut self,
        stamp: Stamp,
        view: &ProcessView,
        now: Timestamp,
        body: &[u8],
        tag: &str,
    ) {
        if body.len() > BODY_BYTES_MAX {
            return;
        }
        write_key(&mut self.key, &view.row.tenant, view.row.process.as_str());
        let answer = Answer {
            stamp,
            stale_after: view.row.stale_after(),
            is_stale: view.row.is_stale(now),
            body: body.into(),
            tag: tag.into(),
        };
        match self.young.get_mut(self.key.as_str()) {
            Some(kept) => *kept = answer,
            None => self.insert(self.key.as_str().into(), answer),
        }
    }

    fn insert(&mut self, key: Box<str>, answer: Answer) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, answer);
    }
}

/// No tenant's name holds a slash, so no two pairs share a key.
fn write_key(key: &mut String, tenant: &TenantId, process: &str) {
    key.clear();
    key.push_str(tenant.as_str());
    key.push('/');
    key.push_str(process);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::ids::ProcessId;
    use crate::domain::process::{Policy, State, Status};

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);
    const STAMP: Stamp = Stamp { accepted: 3, commits: 7 };

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    fn view(tenant: &TenantId, process: &str) -> ProcessView {
        let policy = Policy {
            timeout: Duration::from_secs(3600),
            heartbeat_interval: Duration::from_secs(30),
        };
        let process = ProcessId::parse(process).unwrap();
        let row = State::default().row(tenant, &process, &policy);
        ProcessView { row, median_ms: None, version: 1 }
    }

    #[test]
    fn an_answer_is_given_again_until_the_stamp_changes_and_to_its_tenant_only() {
        let (mut answers, tenant_a) = (Answers::default(), tenant("a"));
        answers.keep(STAMP, &view(&tenant_a, "p"), NOW, b"body", "tag");
        let found = answers.find(&tenant_a, "p", STAMP, NOW).unwrap();
        assert_eq!((&*found.body, &*found.tag), (&b"body"[..], "tag"));
        for stamp in [Stamp { accepted: 4, ..STAMP }, Stamp { commits: 8, ..STAMP }] {
            assert!(answers.find(&tenant_a, "p", stamp, NOW).is_none());
        }
        assert!(answers.find(&tenant("b"), "p", STAMP, NOW).is_none());
        assert!(answers.find(&tenant_a, "q", STAMP, NOW).is_none());
    }

    #[test]
    fn silence_ends_an_answer_without_any_event() {
        let (mut answers, tenant) = (Answers::default(), tenant("a"));
        let mut view = view(&tenant, "p");
        view.row.status = Status::Running;
        view.row.heartbeat_seen = true;
        view.row.last_life_at = Some(NOW);
        answers.keep(STAMP, &view, NOW, b"body", "tag");
        let last = view.row.stale_after().unwrap();
        assert!(answers.find(&tenant, "p", STAMP, last).is_some());
        let later = last.plus(Duration::from_micros(1));
        assert!(answers.find(&tenant, "p", STAMP, later).is_none());
        answers.keep(STAMP, &view, later, b"stale", "tag");
        assert_eq!(&*answers.find(&tenant, "p", STAMP, later).unwrap().body, b"stale");
        assert!(answers.find(&tenant, "p", STAMP, last).is_none(), "the clock was set back");
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_asked_for_stays() {
        let (mut answers, tenant) = (Answers::default(), tenant("a"));
        answers.keep(STAMP, &view(&tenant, "long"), NOW, &[0; BODY_BYTES_MAX + 1], "tag");
        assert!(answers.find(&tenant, "long", STAMP, NOW).is_none());
        for number in 0..5 * GENERATION {
            answers.keep(STAMP, &view(&tenant, &number.to_string()), NOW, b"body", "tag");
            assert!(answers.find(&tenant, "0", STAMP, NOW).is_some(), "after {number}");
            assert!(answers.young.len() + answers.old.len() <= 2 * GENERATION);
        }
        assert!(answers.find(&tenant, "1", STAMP, NOW).is_none());
    }
}
