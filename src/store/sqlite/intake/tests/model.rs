//! The rules of the contract said plainly, against the real thing. This module posts, fails, projects, trims and
//! restarts at random and compares.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// What may happen to a store, for the property below.
#[derive(Debug, Clone)]
enum Step {
    Post(Vec<(Option<u8>, Option<u8>, u8, u8)>),
    Fail,
    Project(usize),
    Trim,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    // Few keys, ids, payloads and streams, so that they meet.
    let post = (option::of(0..6_u8), option::of(0..6_u8), 0..3_u8, 0..3_u8);
    prop_oneof![
        6 => vec(post, 1..6).prop_map(Step::Post),
        1 => Just(Step::Fail),
        3 => (1..8_usize).prop_map(Step::Project),
        1 => Just(Step::Trim),
        2 => Just(Step::Restart),
    ]
}

/// The rules of the contract, as plainly as they can be said.
#[derive(Default)]
struct Model {
    by_key: HashMap<u8, (u8, Receipt)>,
    by_id: HashMap<u8, (u8, Receipt)>,
    numbers: HashMap<u8, u64>,
    accepted: usize,
}

impl Model {
    /// Checks the verdict on a post, and takes in its effect.
    fn check(
        &mut self,
        (key, id, hash, stream): (Option<u8>, Option<u8>, u8, u8),
        verdict: &Verdict,
    ) {
        let known = match (
            key.and_then(|key| self.by_key.get(&key)),
            id.and_then(|id| self.by_id.get(&id)),
        ) {
            (Some((first, receipt)), _) if *first == hash => {
                Some(Verdict::Replayed(receipt.clone()))
            }
            (Some(_), _) => Some(Verdict::KeyReused),
            (None, Some((first, receipt))) if *first == hash => {
                Some(Verdict::Replayed(receipt.clone()))
            }
            (None, Some(_)) => Some(Verdict::EventIdReused),
            (None, None) => None,
        };
        if let Some(known) = known {
            assert_eq!(*verdict, known);
            return;
        }
        let number = self.numbers.entry(stream).or_default();
        *number += 1;
        self.accepted += 1;
        let receipt = receipt(verdict.clone());
        assert_eq!(receipt.stream_seq, *number);
        key.map(|key| self.by_key.insert(key, (hash, receipt.clone())));
        id.map(|id| self.by_id.insert(id, (hash, receipt.clone())));
    }
}

fn posted((key, id, hash, stream): (Option<u8>, Option<u8>, u8, u8)) -> Envelope {
    let envelope = envelope(&format!("s{stream}"), &format!("e{}", id.unwrap_or(99)));
    Envelope {
        key: key.map(|key| IdempotencyKey::parse(&format!("k{key}")).unwrap()),
        id_origin: if id.is_some() { IdOrigin::Caller } else { IdOrigin::Door },
        hash: PayloadHash([hash; 32]),
        ..envelope
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_and_numbers_follow_the_rules_whatever_happens_in_between(steps in vec(step(), 1..40)) {
        let (_place, mut site) = Site::new();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Post(posts) => {
                    let verdicts = site.accept(posts.iter().copied().map(posted).collect());
                    for (post, verdict) in posts.into_iter().zip(&verdicts) {
                        model.check(post, verdict);
                    }
                }
                Step::Fail => {
                    site.intake.log.connection().pragma_update(None, "query_only", true).unwrap();
                    let fresh = (0..3).map(|stream| posted((None, None, 0, stream))).collect();
                    // The first failure is an error; then the store is known to be closed.
                    if let Ok(verdicts) = site.intake.accept(site.now, fresh) {
                        let refused = |verdict: &Verdict| matches!(verdict, Verdict::Unavailable(_));
                        prop_assert!(verdicts.iter().all(refused), "{verdicts:?}");
                    }
                    site.intake.log.connection().pragma_update(None, "query_only", false).unwrap();
                    site.now = site.now.plus(Duration::from_secs(1));
                }
                Step::Project(max) => {
                    site.project(max);
                }
                Step::Trim => {
                    trim(site.intake.log.connection(), site.cursor(), 1000).unwrap();
                }
                Step::Restart => site = site.restart(),
            }
        }
        while site.project(1000) > 0 {}
        prop_assert_eq!(site.cursor(), i64::try_from(model.accepted).unwrap());
    }
}
