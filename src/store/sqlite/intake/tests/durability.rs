//! What was acknowledged stays, with its place and number. This module takes the power away, fills the disk, tears
//! files and fills the backlog.

use super::repeats::check_repeats;
use super::*;
use crate::store::sqlite::overlay::BYTES_MAX;

#[test]
fn numbers_have_no_gap_over_restarts_and_projections() {
    let (_place, mut site) = Site::new();
    assert_eq!(site.post(&["a", "b", "a"]), [1, 1, 2]);
    let mut site = site.restart();
    assert_eq!(site.post(&["a", "b"]), [3, 2]);
    assert_eq!(site.project(3), 3, "a part of it");
    let mut site = site.restart();
    assert_eq!(site.post(&["a", "b", "c"]), [4, 3, 1]);
    while site.project(2) > 0 {}
    let mut site = site.restart();
    assert_eq!(site.post(&["a", "b", "c"]), [5, 4, 2]);
}

#[test]
fn a_failed_commit_takes_no_number_no_key_and_no_place() {
    let (_place, mut site) = Site::new();
    assert_eq!(site.post(&["s"]), [1]);
    let pages: i64 =
        site.intake.log.connection().query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    site.intake.log.connection().pragma_update(None, "max_page_count", pages).unwrap();
    let batch = (0..200).map(|n| keyed(&format!("k{n}"), &format!("e{n}"), 1)).collect();
    let failure = site.intake.accept(site.now, batch).unwrap_err();
    assert!(failure.is_transient(), "{failure}");
    assert!(matches!(site.space.state(), WriteState::Closed(_)));
    assert_eq!(site.overlay.backlog().0, 1);

    // The file takes no probe either: what is new is refused, and what is known is known.
    site.intake.log.connection().pragma_update(None, "query_only", true).unwrap();
    assert!(matches!(site.accept_one(keyed("k0", "e0", 1)), Verdict::Unavailable(_)));

    // It takes writes again, and the next second finds out.
    site.intake.log.connection().pragma_update(None, "query_only", false).unwrap();
    site.intake.log.connection().pragma_update(None, "max_page_count", 1_000_000).unwrap();
    assert!(matches!(site.accept_one(keyed("k0", "e0", 1)), Verdict::Unavailable(_)));
    site.now = site.now.plus(Duration::from_secs(1));
    assert_eq!(seq(site.accept_one(keyed("k0", "e0", 2))), 1);
    assert_eq!(site.space.state(), WriteState::Open);
    assert_eq!(site.post(&["s"]), [2]);
    assert_eq!(site.project(10), 3);
}

#[test]
fn while_the_disk_is_full_known_requests_still_get_their_answer() {
    let (_place, mut site) = Site::new();
    let first = receipt(site.accept_one(keyed("k1", "e1", 1)));
    site.space.observe(10, 100);
    assert!(matches!(site.accept_one(keyed("k2", "e2", 1)), Verdict::Unavailable(_)));
    check_repeats(&mut site, &first);
    site.space.observe(60, 100);
    assert_eq!(seq(site.accept_one(keyed("k2", "e2", 1))), 2, "events go in while logs are shed");
}

#[test]
fn a_full_backlog_refuses_what_is_new_until_the_projection_has_caught_up() {
    let (_place, mut site) = Site::new();
    let heavy = "x".repeat(BYTES_MAX);
    let verdict = site.accept_one(Envelope { payload: heavy.into(), ..keyed("k1", "e1", 1) });
    let first = receipt(verdict);
    assert_eq!(site.accept_one(keyed("k2", "e2", 1)), Verdict::Unavailable(BACKLOG_FULL));
    assert_eq!(site.accept_one(keyed("k1", "e1", 1)), Verdict::Replayed(first));
    site.project(10);
    assert_eq!(seq(site.accept_one(keyed("k2", "e2", 1))), 2);
}

#[test]
fn a_tenant_with_its_share_of_the_backlog_is_held_back_and_no_other() {
    let (_place, mut site) = Site::new();
    let half = "x".repeat(BYTES_MAX / 2);
    let first = receipt(site.accept_one(Envelope { payload: half.into(), ..keyed("k1", "e1", 1) }));
    let other = TenantId::parse("t2").unwrap();
    let verdicts = site.accept(vec![
        keyed("k2", "e2", 1),
        Envelope { tenant: other, ..keyed("k2", "e2", 1) },
        keyed("k1", "e1", 1),
        keyed("k3", "e3", 1),
    ]);
    let held_back = Verdict::HeldBack(SHARE_TAKEN);
    let [second, others, repeat, last] = &verdicts[..] else { panic!("{verdicts:?}") };
    assert_eq!([second, last], [&held_back; 2]);
    assert!(matches!(others, Verdict::Accepted(_)), "{others:?}");
    assert_eq!(*repeat, Verdict::Replayed(first));
    site.project(10);
    assert_eq!(seq(site.accept_one(keyed("k2", "e2", 1))), 2);
}

#[test]
fn what_was_acknowledged_is_seen_at_once_and_after_a_restart() {
    let (_place, mut site) = Site::new();
    site.post(&["a", "b", "a"]);
    assert_eq!(site.positions_of("a"), [1, 3]);
    let mut site = site.restart();
    assert_eq!(site.positions_of("a"), [1, 3]);
    assert_eq!(site.overlay.backlog().0, 3);
    site.project(10);
    let site = site.restart();
    assert_eq!(site.positions_of("a"), [0; 0]);
    assert_eq!(site.overlay.backlog(), (0, None));
}

/// A site that was started with six events in its log, of which memory has room for three.
fn with_a_long_backlog() -> (TempDir, Site) {
    let (place, mut site) = Site::new();
    let third = "x".repeat(BYTES_MAX / 3);
    for number in 1..=6 {
        // Every event finds an empty overlay, as if there had been room for all of them.
        site.intake.overlay = Arc::new(Overlay::new(number - 1));
        let envelope =
            Envelope { payload: third.clone().into(), ..envelope("a", &format!("e{number}")) };
        assert_eq!(seq(site.accept_one(envelope)), number.unsigned_abs());
    }
    drop(site);
    let mut site = open(place.path()).unwrap();
    assert_eq!(site.accept_one(door(envelope("a", "x"))), Verdict::Unavailable(CATCHING_UP));
    assert_eq!(site.overlay.backlog().0, 6);
    (place, site)
}

fn check_caught_up(site: &mut Site) {
    assert_eq!(seq(site.accept_one(door(envelope("a", "x")))), 7, "the rest fits now");
    for number in 1..=6 {
        let verdict = site.accept_one(envelope("a", &format!("e{number}")));
        assert!(matches!(verdict, Verdict::Replayed(receipt) if receipt.stream_seq == number));
    }
    while site.project(2) > 0 {}
    assert_eq!(site.cursor(), 7);
}

#[test]
fn a_backlog_that_does_not_fit_is_caught_up_with_before_anything_new_is_taken() {
    let (_place, mut site) = with_a_long_backlog();
    assert_eq!(site.project(10), 3, "what fits is handed over");
    assert_eq!(site.project(1), 1, "the rest comes from the log");
    let verdict = site.accept_one(door(envelope("a", "x")));
    assert_eq!(verdict, Verdict::HeldBack(SHARE_TAKEN), "it fits, and is two thirds of the room");
    assert_eq!(site.project(1), 1);
    check_caught_up(&mut site);
}

#[test]
fn a_backlog_that_was_applied_and_trimmed_unseen_is_known_all_the_same() {
    for trimmed in [5, 6] {
        let (_place, mut site) = with_a_long_backlog();
        while site.project(1) > 0 {}
        trim(site.intake.log.connection(), trimmed, 10).unwrap();
        check_caught_up(&mut site);
    }
}

#[test]
fn a_position_is_never_given_twice() {
    let (_place, mut site) = Site::new();
    site.post(&["a", "b", "c"]);
    site.project(10);
    let keeper = open_writer(&site.folder.log_db(), false).unwrap();
    assert_eq!(trim(&keeper, site.cursor(), 100).unwrap(), 3);
    drop(keeper);
    let mut site = site.restart();
    site.post(&["a"]);
    assert_eq!(site.positions_of("a"), [4]);
    assert_eq!(site.project(10), 1);
}

fn refusal(path: &Path) -> String {
    match open(path) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_log_that_ends_before_the_projection_is_refused_with_advice() {
    let (place, mut site) = Site::new();
    site.post(&["a", "b", "c"]);
    site.project(10);
    drop(site);
    fs::remove_file(place.path().join("log.db")).unwrap();
    let words = refusal(place.path());
    assert!(words.contains("log ends at 0, events.db has applied 3"), "{words}");
    assert!(words.contains("sentinel rebuild"), "{words}");
}

#[test]
fn a_log_that_was_trimmed_beyond_the_projection_is_refused_with_advice() {
    let (place, mut site) = Site::new();
    site.post(&["a", "b", "c"]);
    for trimmed in [2, 3] {
        trim(site.intake.log.connection(), trimmed, 10).unwrap();
        let copy = tempfile::tempdir().unwrap();
        copy_folder(place.path(), copy.path());
        let words = refusal(copy.path());
        assert!(words.contains("events.db has applied 0"), "{words}");
        assert!(words.contains("sentinel rebuild"), "{words}");
    }
}

/// What a machine that lost its power would find: the files as they are, without a farewell.
fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if !name.to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

#[test]
fn a_torn_end_of_the_log_is_what_was_never_acknowledged() {
    let (place, mut site) = Site::new();
    assert_eq!(site.post(&["a", "a"]), [1, 2]);
    let whole = fs::metadata(place.path().join("log.db-wal")).unwrap().len();
    assert_eq!(site.post(&["a"]), [3]);

    let torn = tempfile::tempdir().unwrap();
    copy_folder(place.path(), torn.path());
    let wal = fs::OpenOptions::new().write(true).open(torn.path().join("log.db-wal")).unwrap();
    wal.set_len(whole + 1000).unwrap();
    let mut after = open(torn.path()).unwrap();
    assert!(after.folder.was_unclean());
    assert_eq!(after.overlay.backlog().0, 2);
    assert_eq!(after.post(&["a"]), [3], "the number of the torn one");

    // If the projection had it already, the end was cut off later, by no fault of ours.
    site.project(10);
    let torn = tempfile::tempdir().unwrap();
    copy_folder(place.path(), torn.path());
    let wal = fs::OpenOptions::new().write(true).open(torn.path().join("log.db-wal")).unwrap();
    wal.set_len(whole + 1000).unwrap();
    let words = refusal(torn.path());
    assert!(words.contains("log ends at 2, events.db has applied 3"), "{words}");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_goes() {
    let (place, mut site) = Site::new();
    for round in 0..20 {
        site.post(&["a", "b"]);
        if round % 3 == 0 {
            site.project(3);
        }
        if round % 5 == 0 {
            checkpoint(&open_writer(&site.folder.log_db(), false).unwrap()).unwrap();
        }
        let copy = tempfile::tempdir().unwrap();
        copy_folder(place.path(), copy.path());
        let mut after = open(copy.path()).unwrap();
        assert_eq!(after.post(&["a", "b"]), [round + 2, round + 2]);
    }
}

#[test]
fn an_unreadable_row_from_before_the_start_does_not_stop_intake() {
    let (_place, mut site) = Site::new();
    site.post(&["a", "b", "c"]);
    site.intake.log.connection().execute("UPDATE log SET body = x'09' WHERE id = 2", []).unwrap();
    let mut site = site.restart();
    assert_eq!(site.overlay.backlog().0, 3);
    assert!(matches!(site.overlay.take(1, 10), Taken::Gap), "the listener reads it from the log");
    assert_eq!(site.post(&["a", "c"]), [2, 2]);
}

/// The longest WAL over 20 MB of commits, with a keeper that is overtaken by a commit each time it copies.
fn longest_wal(keeper_asks: bool) -> u64 {
    let (place, mut site) = Site::new();
    let keeper = open_writer(&site.folder.log_db(), false).unwrap();
    let reader = open_reader(&site.folder.log_db()).unwrap();
    let payload: Box<str> = "x".repeat(4000).into();
    let mut longest = 0;
    for round in 0..50 {
        // A checkpoint copies no further than the oldest reader, so this is a commit that comes while it copies.
        let overtaken = round % 5 == 0;
        if overtaken {
            reader.execute_batch("BEGIN; SELECT count(*) FROM probe").unwrap();
        }
        let batch = (0..100)
            .map(|_| Envelope { payload: payload.clone(), ..door(envelope("s", "x")) })
            .collect();
        site.accept(batch);
        if overtaken {
            let (_, pages, copied) = checkpoint(&keeper).unwrap();
            assert!(copied < pages, "{copied} of {pages}");
            reader.execute_batch("COMMIT").unwrap();
            if keeper_asks {
                site.wal.observe(pages, copied);
            }
        }
        longest = longest.max(fs::metadata(place.path().join("log.db-wal")).unwrap().len());
        site.overlay.projected(site.intake.log.last());
    }
    longest
}

#[test]
fn the_wal_stays_short_under_commits_without_a_pause() {
    let written = 50 * 100 * 4000;
    let bound = (WAL_PAGES_MAX + 5 * 110 + REMAINDER_PAGES_MAX) * 4200;
    let alone = longest_wal(false);
    assert!(alone > bound && alone > written, "it would never start over by itself: {alone} bytes");
    let kept = longest_wal(true);
    assert!(kept < bound, "{kept} bytes, not more than {bound}");
}

#[test]
fn an_event_dated_out_of_bounds_is_ordered_by_its_receipt() {
    let (_place, mut site) = Site::new();
    let future = site.now.plus(Duration::from_secs(3600));
    site.accept_one(Envelope { occurred_at: Some(future), ..envelope("a", "e1") });
    let Taken::Events(events) = site.overlay.take(0, 1) else { panic!("it is there") };
    assert_eq!((events[0].ordered_at, events[0].clock_skew), (site.now, true));
    let stream = StreamKey::parse("a").unwrap();
    assert_eq!(events[0].envelope.stream, stream);
}

/// Not a test: how many events a second go in, in batches of 64 and 1,000. Run by hand, in release.
#[test]
#[ignore = "a measurement, and only worth something in release"]
fn measure_acceptance() {
    for batch in [1, 64, 1000] {
        let (_place, mut site) = Site::new();
        let rounds = (200_000 / batch).min(20_000);
        let payload: Box<str> = "x".repeat(400).into();
        let batches: Vec<Vec<Envelope>> = (0..rounds)
            .map(|round| {
                (0..batch)
                    .map(|index| {
                        let number = round * batch + index;
                        let envelope = envelope(
                            &format!("s{}", number * 7919 % 10_000),
                            &format!("e{number}"),
                        );
                        Envelope { payload: payload.clone(), ..envelope }
                    })
                    .collect()
            })
            .collect();
        let mut spent = Duration::ZERO;
        for batch in batches {
            let begun = std::time::Instant::now();
            site.accept(batch);
            spent += begun.elapsed();
            let end = site.intake.log.last();
            site.overlay.projected(end);
        }
        let events = u32::try_from(rounds * batch).unwrap();
        println!(
            "batch {batch}: {:.0} events/s, {:.1} us each",
            f64::from(events) / spent.as_secs_f64(),
            spent.as_secs_f64() * 1e6 / f64::from(events)
        );
    }
}
