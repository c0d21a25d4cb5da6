//! Repeats: one effect, and the first answer again. This module asks for them wherever the first one may be.

use super::*;

/// Every rule about repeats, asked of a site that has accepted (key k1, id e1, payload 1) with `first` as receipt.
pub(super) fn check_repeats(site: &mut Site, first: &Receipt) {
    let replayed = Verdict::Replayed(first.clone());
    for (name, envelope, verdict) in [
        ("same key, id and payload", keyed("k1", "e1", 1), replayed.clone()),
        ("same key and payload, new id", keyed("k1", "e2", 1), replayed.clone()),
        ("same key, other payload", keyed("k1", "e1", 2), Verdict::KeyReused),
        ("same id and payload, other key", keyed("k2", "e1", 1), replayed.clone()),
        ("same id and payload, no key", Envelope { key: None, ..keyed("k1", "e1", 1) }, replayed),
        ("same id, other payload and key", keyed("k2", "e1", 2), Verdict::EventIdReused),
    ] {
        assert_eq!(site.accept_one(envelope), verdict, "{name}");
    }
}

#[test]
fn a_repeat_has_no_second_effect_and_gets_the_first_answer_wherever_the_first_one_is() {
    let (_place, mut site) = Site::new();
    let first = receipt(site.accept_one(keyed("k1", "e1", 1)));
    assert_eq!((first.stream_seq, first.event_id.as_str()), (1, "e1"));
    site.now = site.now.plus(Duration::from_secs(60));
    check_repeats(&mut site, &first);
    let mut site = site.restart();
    check_repeats(&mut site, &first);
    assert_eq!(site.project(100), 1, "nothing but the first was accepted");
    check_repeats(&mut site, &first);
    let mut site = site.restart();
    check_repeats(&mut site, &first);
    assert_eq!(site.project(100), 0);
}

#[test]
fn a_uuid_comes_back_from_the_disk_as_it_was_written() {
    for id in ["b2c6f1a9-2c2a-4d2d-9b7b-0b5f2a0a67d1", "B2C6F1A9-2C2A-4D2D-9B7B-0B5F2A0A67D1"] {
        let (_place, mut site) = Site::new();
        let first = receipt(site.accept_one(envelope("s", id)));
        site.project(100);
        let mut site = site.restart();
        assert_eq!(site.accept_one(envelope("s", id)), Verdict::Replayed(first), "{id}");
    }
}

#[test]
fn two_first_sends_in_one_batch_are_one_event() {
    let (_place, mut site) = Site::new();
    let verdicts = site.accept(vec![
        keyed("k1", "e1", 1),
        keyed("k1", "e1", 1),
        keyed("k1", "e9", 2),
        keyed("k3", "e1", 2),
        keyed("k4", "e4", 1),
    ]);
    let first = receipt(verdicts[0].clone());
    assert_eq!(verdicts[1], Verdict::Replayed(first));
    assert_eq!(verdicts[2], Verdict::KeyReused);
    assert_eq!(verdicts[3], Verdict::EventIdReused);
    assert_eq!(receipt(verdicts[4].clone()).stream_seq, 2, "a refused one takes no number");
}

#[test]
fn keys_and_ids_of_one_tenant_mean_nothing_to_another() {
    let (_place, mut site) = Site::new();
    let other = Envelope { tenant: TenantId::parse("t2").unwrap(), ..keyed("k1", "e1", 2) };
    let verdicts = site.accept(vec![keyed("k1", "e1", 1), other]);
    assert_eq!(verdicts.into_iter().map(seq).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn an_id_that_we_chose_is_compared_with_nothing() {
    let (_place, mut site) = Site::new();
    assert_eq!(site.post(&["s", "s"]), [1, 2], "both have the id x");
}

#[test]
fn a_repeat_is_known_long_after_memory_has_let_go_of_it() {
    let (_place, mut site) = Site::new();
    let first = receipt(site.accept_one(keyed("k1", "e1", 1)));
    let many = (0..70_000).map(|number| envelope("many", &format!("many-{number}"))).collect();
    site.accept(many);
    while site.project(4000) > 0 {}
    site.accept_one(envelope("s", "the next batch lets go".replace(' ', "-").as_str()));
    assert!(site.intake.identities.recent_count() < 66_000);
    check_repeats(&mut site, &first);
}

#[test]
fn a_repeat_after_the_window_is_a_new_event() {
    let (_place, mut site) = Site::new();
    site.accept_one(keyed("k1", "e1", 1));
    site.project(100);
    site.now = site.now.plus(SETTINGS.idempotency);
    assert!(matches!(site.accept_one(keyed("k1", "e1", 1)), Verdict::Replayed(_)));
    site.now = site.now.plus(Duration::from_micros(1));
    let second = receipt(site.accept_one(keyed("k1", "e1", 2)));
    assert_eq!(second.stream_seq, 2);
    let replayed = Verdict::Replayed(second);
    assert_eq!(site.accept_one(keyed("k1", "e1", 2)), replayed, "the newest counts");
    site.project(100);
    let mut site = site.restart();
    site.now = site.now.plus(SETTINGS.idempotency);
    assert_eq!(site.accept_one(keyed("k1", "e1", 2)), replayed);
}

#[test]
fn tables_past_the_window_are_dropped_and_their_repeats_are_new() {
    let (_place, mut site) = Site::new();
    site.accept_one(keyed("k1", "e1", 1));
    site.project(100);
    assert_eq!(idempotency::drop_older_than(&site.events, site.now).unwrap(), 0);
    let later = site.now.plus(Duration::from_micros(1));
    assert_eq!(idempotency::drop_older_than(&site.events, later).unwrap(), 1);
    assert_eq!(idempotency::drop_older_than(&site.events, later).unwrap(), 0);
    let mut site = site.restart();
    assert_eq!(seq(site.accept_one(keyed("k1", "e1", 2))), 2);
    site.project(100);
}

#[test]
fn identities_are_found_in_any_table_with_and_without_its_stored_filter() {
    let (place, site) = Site::new();
    let folder = Arc::clone(&site.folder);
    let mut events = site.events;
    let received_at = site.now;
    let made = |position: i64| {
        let envelope = envelope("s", &format!("id-{position}"));
        let settings = SETTINGS;
        Arc::new(settings.accepted(received_at, position, position.unsigned_abs(), envelope))
    };
    // One event at each end of three tables.
    let positions = [1, (1 << 18) - 1, 1 << 18, (2 << 18) - 1, 2 << 18];
    for position in positions {
        let tx = events.transaction().unwrap();
        idempotency::record(&tx, &[made(position)]).unwrap();
        tx.commit().unwrap();
    }
    let filters: i64 =
        events.query_row("SELECT count(*) FROM idempotency_filter", [], |row| row.get(0)).unwrap();
    assert_eq!(filters, 2, "the tables that are full");
    for round in 0..2 {
        let identities = Identities::open(&events, SETTINGS.idempotency, site.now).unwrap();
        for position in positions {
            let event = made(position);
            let identity = Identity::of(&event.envelope);
            let verdict = identities
                .judge(site.now, &identity, &event.envelope.hash, || Ok(&events))
                .unwrap();
            assert!(matches!(verdict, Some(Verdict::Replayed(_))), "{position} in round {round}");
        }
        let unknown = Identity::of(&envelope("s", "never"));
        let nobody = || -> Result<&Connection> { panic!("the filters deny it") };
        let hash = PayloadHash([7; 32]);
        assert_eq!(identities.judge(site.now, &unknown, &hash, nobody).unwrap(), None);
        events.execute("DELETE FROM idempotency_filter", []).unwrap();
    }
    drop((folder, place));
}

#[test]
fn a_repeat_is_known_again_once_a_clock_that_was_ahead_is_set_back() {
    let (_place, mut site) = Site::new();
    let now = site.now;
    let made = |position: i64| {
        let envelope = envelope("s", &format!("id-{position}"));
        Arc::new(SETTINGS.accepted(now, position, position.unsigned_abs(), envelope))
    };
    // One event in each of two tables.
    for position in [1, 1 << 18] {
        let tx = site.events.transaction().unwrap();
        idempotency::record(&tx, &[made(position)]).unwrap();
        tx.commit().unwrap();
    }
    let ahead = now.plus(SETTINGS.idempotency * 2);
    let open = |at| Identities::open(&site.events, SETTINGS.idempotency, at).unwrap();
    let mut running = open(now);
    running.forget(ahead, 1 << 18);
    for identities in [running, open(ahead)] {
        for position in [1, 1 << 18] {
            let event = made(position);
            let identity = Identity::of(&event.envelope);
            let judge = |at| {
                identities.judge(at, &identity, &event.envelope.hash, || Ok(&site.events)).unwrap()
            };
            assert_eq!(judge(ahead), None, "past the window it is a new event");
            assert!(matches!(judge(now), Some(Verdict::Replayed(_))), "{position}");
        }
    }
}

/// Not a test: what keeping identities costs the projection, as they become many. Run by hand, in release.
#[test]
#[ignore = "a measurement, and only worth something in release"]
fn measure_keeping_identities() {
    let (_place, mut site) = Site::new();
    let received_at = site.now;
    let mut position = 0;
    for part in 0..6 {
        let mut spent = Duration::ZERO;
        for batch in 0..50 {
            let events: Vec<_> = (0..2000)
                .map(|_| {
                    position += 1;
                    let envelope = keyed(&format!("key-{position}"), &format!("id-{position}"), 1);
                    Arc::new(SETTINGS.accepted(received_at, position, 1, envelope))
                })
                .collect();
            let begun = std::time::Instant::now();
            let tx = site.events.transaction().unwrap();
            idempotency::record(&tx, &events).unwrap();
            tx.commit().unwrap();
            if batch % 10 == 0 {
                checkpoint(&site.events).unwrap();
            }
            spent += begun.elapsed();
        }
        println!("events {}: {:.2} us each", (part + 1) * 100_000, spent.as_secs_f64() * 10.0);
    }
}
