//! Clauses about repeats: a request that comes twice has one effect and gets the first answer. This module holds them
//! before and after everything that might make a store forget.

use sentinel::domain::event::{Envelope, IdOrigin, Receipt, Verdict};

use super::{HOUR, SECOND, Site, WINDOW, acme, each, idempotency, tenant};

/// An event with a key.
fn keyed(site: &mut Site, key: &str) -> Envelope {
    let mut envelope = site.envelope("s", "Ordered", "{}");
    envelope.key = Some(idempotency(key));
    envelope
}

/// The same request again, under an id that the door made anew.
fn again(site: &mut Site, envelope: &Envelope) -> Envelope {
    let fresh = site.envelope("s", "Ordered", "{}");
    Envelope { event_id: fresh.event_id, ..envelope.clone() }
}

fn verdict(site: &mut Site, envelope: Envelope) -> Verdict {
    site.clock.forward(SECOND);
    site.accept(vec![envelope]).remove(0)
}

/// Fails unless the request is a replay of `receipt`, and the same key with another payload is refused.
fn is_remembered(site: &mut Site, envelope: &Envelope, receipt: &Receipt, when: &str) {
    let repeat = again(site, envelope);
    assert_eq!(verdict(site, repeat), Verdict::Replayed(receipt.clone()), "{when}");
    let mut other = again(site, envelope);
    other.hash.0[31] ^= 1;
    other.hash.0[0] ^= 1;
    assert_eq!(verdict(site, other), Verdict::KeyReused, "{when}");
}

#[test]
fn the_same_key_gets_the_first_receipt_whatever_has_happened_since() {
    each(|site| {
        let envelope = keyed(site, "k");
        let receipt = site.accept_one(envelope.clone());
        is_remembered(site, &envelope, &receipt, "at once");
        site.apply(10);
        is_remembered(site, &envelope, &receipt, "after it was applied");
        site.reopen();
        is_remembered(site, &envelope, &receipt, "after the store was opened again");
        // Upkeep drops what the projection holds and is old enough.
        site.clock.forward(40 * HOUR);
        let upkeep = site.store.keeper().unwrap().upkeep(site.now()).unwrap();
        let trimmed = upkeep.trimmed_rows > 0;
        let has_log = !site.differs().has_no_log;
        assert_eq!(trimmed, has_log, "the log was trimmed on {}", site.backend.name);
        is_remembered(site, &envelope, &receipt, "after the log was trimmed");
        site.reopen();
        is_remembered(site, &envelope, &receipt, "after trim and reopening");
        assert_eq!(site.backlog().0, 0, "no repeat was accepted");
    });
}

#[test]
fn what_waits_to_be_applied_is_remembered_when_the_store_is_opened_again() {
    each(|site| {
        let envelope = keyed(site, "k");
        let receipt = site.accept_one(envelope.clone());
        site.reopen();
        is_remembered(site, &envelope, &receipt, "not applied, opened again");
    });
}

#[test]
fn a_key_is_known_within_its_own_batch() {
    each(|site| {
        let envelope = keyed(site, "k");
        let repeat = again(site, &envelope);
        let verdicts = site.accept(vec![envelope, repeat]);
        let Verdict::Accepted(receipt) = &verdicts[0] else { panic!("{verdicts:?}") };
        assert_eq!(verdicts[1], Verdict::Replayed(receipt.clone()));
    });
}

#[test]
fn an_id_of_the_caller_is_known_under_another_key_and_without_one() {
    each(|site| {
        let mut envelope = keyed(site, "k1");
        envelope.id_origin = IdOrigin::Caller;
        let receipt = site.accept_one(envelope.clone());
        for applied in [false, true] {
            let other_key = Envelope { key: Some(idempotency("k2")), ..envelope.clone() };
            assert_eq!(verdict(site, other_key.clone()), Verdict::Replayed(receipt.clone()));
            let no_key = Envelope { key: None, ..envelope.clone() };
            assert_eq!(verdict(site, no_key), Verdict::Replayed(receipt.clone()));
            let mut other_payload = other_key;
            other_payload.hash.0[0] ^= 1;
            assert_eq!(verdict(site, other_payload), Verdict::EventIdReused, "applied: {applied}");
            site.apply(10);
        }
        let elsewhere = sentinel::domain::ids::Source::parse("billing").unwrap();
        let stranger = Envelope { key: None, source: elsewhere, ..envelope };
        assert!(matches!(verdict(site, stranger), Verdict::Accepted(_)), "of another source");
    });
}

#[test]
fn a_request_that_became_a_dead_letter_is_remembered_like_any_other() {
    each(|site| {
        let mut envelope = site.envelope("s", "process.bogus", "{}");
        envelope.key = Some(idempotency("k"));
        let receipt = site.accept_one(envelope.clone());
        site.apply(10);
        site.reopen();
        is_remembered(site, &envelope, &receipt, "set aside");
    });
}

#[test]
fn an_id_that_the_door_made_is_no_identity() {
    each(|site| {
        let envelope = site.envelope("s", "Ordered", "{}");
        assert_eq!(site.accept_one(envelope.clone()).stream_seq, 1);
        assert_eq!(site.accept_one(envelope).stream_seq, 2);
    });
}

#[test]
fn the_same_key_and_id_in_two_tenants_are_strangers() {
    each(|site| {
        let mut ours = keyed(site, "k");
        ours.id_origin = IdOrigin::Caller;
        let theirs = Envelope { tenant: tenant("other"), ..ours.clone() };
        let mut changed = theirs.clone();
        changed.hash.0[0] ^= 1;
        assert_eq!(site.accept_one(ours.clone()).stream_seq, 1);
        assert_eq!(site.accept_one(theirs.clone()).stream_seq, 1);
        site.apply(10);
        assert!(matches!(verdict(site, ours), Verdict::Replayed(_)));
        assert!(matches!(verdict(site, theirs.clone()), Verdict::Replayed(_)));
        assert_eq!(verdict(site, changed), Verdict::KeyReused);
        assert!(site.reader.event(&acme(), &theirs.event_id).unwrap().is_some());
        assert!(site.reader.event(&tenant("other"), &theirs.event_id).unwrap().is_some());
    });
}

#[test]
fn a_key_older_than_the_window_is_new() {
    each(|site| {
        for reopened in [false, true] {
            let name = if reopened { "k2" } else { "k1" };
            let mut envelope = keyed(site, name);
            envelope.id_origin = IdOrigin::Caller;
            let number = site.accept_one(envelope.clone()).stream_seq;
            site.apply(10);
            site.clock.forward(WINDOW - SECOND);
            assert!(matches!(verdict(site, envelope.clone()), Verdict::Replayed(_)), "on its edge");
            if reopened {
                site.reopen();
            }
            let Verdict::Accepted(receipt) = verdict(site, envelope.clone()) else {
                panic!("past the window it is new")
            };
            assert_eq!(receipt.stream_seq, number + 1);
            assert_eq!(verdict(site, envelope), Verdict::Replayed(receipt), "and known again");
            site.apply(10);
        }
    });
}
