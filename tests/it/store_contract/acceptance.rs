//! Clauses about accepting: every event gets its number, once and for good. This module posts and never applies, or
//! does so only to show that it makes no difference.

use sentinel::domain::event::Verdict;
use sentinel::store::WriteState;

use super::{SECOND, Site, acme, each, key, tenant};

fn number(verdict: &Verdict) -> u64 {
    match verdict {
        Verdict::Accepted(receipt) => receipt.stream_seq,
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_are_numbered_from_one_in_the_order_of_acceptance_whatever_the_batches() {
    each(|site| {
        let mut next = [0_u64; 3];
        for round in 0..12_usize {
            let mut wanted = Vec::new();
            let mut batch = Vec::new();
            for place in 0..=round {
                let stream = (round * 7 + place * 5) % 3;
                next[stream] += 1;
                wanted.push(next[stream]);
                batch.push(site.envelope(&format!("s{stream}"), "Ordered", "{}"));
            }
            let given: Vec<u64> = site.accept(batch).iter().map(number).collect();
            assert_eq!(given, wanted, "round {round}");
            // Numbers go on wherever the projection is.
            if round % 3 == 1 {
                site.apply_once(4);
            }
        }
    });
}

#[test]
fn numbers_go_on_after_the_store_was_opened_again() {
    each(|site| {
        for _ in 0..3 {
            site.post("applied", "Ordered", "{}");
        }
        site.apply(10);
        for _ in 0..2 {
            site.post("waiting", "Ordered", "{}");
            site.post("applied", "Ordered", "{}");
        }
        site.reopen();
        assert_eq!(site.post("applied", "Ordered", "{}").stream_seq, 6);
        assert_eq!(site.post("waiting", "Ordered", "{}").stream_seq, 3);
        assert_eq!(site.post("new", "Ordered", "{}").stream_seq, 1);
    });
}

#[test]
fn a_refused_event_takes_no_number() {
    each(|site| {
        let mut kept = site.envelope("s", "Ordered", "{}");
        kept.key = Some(super::idempotency("k"));
        let mut refused = site.envelope("s", "Ordered", "{}");
        refused.key.clone_from(&kept.key);
        let last = site.envelope("s", "Ordered", "{}");
        let verdicts = site.accept(vec![kept, refused, last]);
        assert_eq!(number(&verdicts[0]), 1);
        assert_eq!(verdicts[1], Verdict::KeyReused);
        assert_eq!(number(&verdicts[2]), 2);
    });
}

#[test]
fn a_receipt_names_the_event_its_stream_and_when_it_came() {
    each(|site| {
        let envelope = site.envelope("s", "Ordered", "{}");
        let id = envelope.event_id.clone();
        let receipt = site.accept_one(envelope);
        assert_eq!(receipt.event_id, id);
        assert_eq!(receipt.stream, key("s"));
        assert_eq!(receipt.received_at, site.now());
    });
}

#[test]
fn streams_of_one_name_in_two_tenants_are_numbered_apart() {
    each(|site| {
        for round in 1..=3 {
            let ours = site.envelope("s", "Ordered", "{}");
            let mut theirs = site.envelope("s", "Ordered", "{}");
            theirs.tenant = tenant("other");
            let verdicts = site.accept(vec![ours, theirs]);
            assert_eq!(verdicts.iter().map(number).collect::<Vec<_>>(), [round, round]);
        }
    });
}

#[test]
fn the_backlog_is_what_is_accepted_and_not_applied() {
    each(|site| {
        assert_eq!(site.backlog(), (0, None));
        let oldest = site.post("s", "Ordered", "{}").received_at;
        // All of one kind, since a store may give some kinds before others.
        let middle = site.post("s", "Ordered", "{}").received_at;
        site.post("t", "Ordered", "{}");
        assert!(site.waits(3, oldest));
        let claim = site.claim(1);
        assert!(site.waits(3, oldest), "a claim is not yet an effect");
        drop(claim);
        site.apply_once(1);
        assert!(site.waits(2, middle));
        site.reopen();
        assert!(site.waits(2, middle), "also after it was opened again");
        site.apply(10);
        assert_eq!(site.backlog(), (0, None));
    });
}

#[test]
fn a_store_with_room_takes_writes() {
    each(|site| {
        assert_eq!(site.store.write_state(), WriteState::Open);
        site.store.keeper().unwrap().upkeep(site.now()).unwrap();
        assert_eq!(site.store.write_state(), WriteState::Open);
    });
}

#[test]
fn an_empty_batch_is_answered_with_nothing() {
    each(|site| assert_eq!(site.accept(Vec::new()), []));
}

#[test]
fn an_event_comes_back_as_it_was_accepted() {
    each(|site| {
        let mut envelope = site.envelope("order 1/ä", "Ordered", r#"{"n":1.0,"t":"ß"}"#);
        envelope.occurred_at = Some(site.now().minus(SECOND * 90));
        envelope.key = Some(super::idempotency("k 1"));
        envelope.schema_version = 7;
        let receipt = site.accept_one(envelope.clone());
        assert_eq!(site.reader.event(&acme(), &receipt.event_id).unwrap(), None, "not applied");
        site.clock.forward(SECOND);
        site.apply(10);
        let stored = site.reader.event(&acme(), &receipt.event_id).unwrap().unwrap();
        assert_eq!(stored.event.envelope, envelope);
        assert_eq!(stored.event.ordered_at, envelope.occurred_at.unwrap());
        assert_eq!(stored.event.received_at, receipt.received_at);
        assert_eq!(stored.processed_at, site.now());
        let Site { reader, .. } = site;
        let listed = reader.stream_events(&acme(), &key("order 1/ä"), 0, 10).unwrap().unwrap();
        assert_eq!(listed, [stored]);
    });
}
