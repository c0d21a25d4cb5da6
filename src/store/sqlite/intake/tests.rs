//! What callers may rely on when they post. This module holds the accepting side to it, over restarts and failures,
//! with a projection reduced to what intake looks up.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::super::connection::open_writer;
use super::super::idempotency;
use super::super::log::tests::envelope;
use super::super::log::trim;
use super::super::overlay::Taken;
use super::super::wal::{REMAINDER_PAGES_MAX, WAL_PAGES_MAX, checkpoint};
use super::*;
use crate::domain::event::{IdOrigin, PayloadHash};
use crate::domain::ids::{IdempotencyKey, ProcessId, StreamKey, TenantId};

const SETTINGS: Settings = Settings {
    retention: Duration::from_secs(30 * 86_400),
    idempotency: Duration::from_secs(168 * 3600),
};

/// A store's accepting side, and a projection of the bare minimum.
struct Site {
    intake: Intake,
    overlay: Arc<Overlay>,
    space: Arc<Space>,
    wal: Arc<WalGauge>,
    events: Connection,
    folder: Arc<Folder>,
    now: Timestamp,
}

fn open(path: &Path) -> Result<Site> {
    let folder = Arc::new(Folder::lock(path)?);
    let events = open_writer(&folder.events_db(), false)?;
    events
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS cursor (id INTEGER PRIMARY KEY CHECK (id = 1), position INTEGER NOT NULL);
             INSERT OR IGNORE INTO cursor VALUES (1, 0);
             CREATE TABLE IF NOT EXISTS tenant (tenant_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
             CREATE TABLE IF NOT EXISTS stream (stream_id INTEGER PRIMARY KEY, tenant_id INTEGER NOT NULL,
                 stream_key TEXT NOT NULL, applied_seq INTEGER NOT NULL, UNIQUE (tenant_id, stream_key));",
        )
        .unwrap();
    idempotency::migrate(&events)?;
    let cursor = events.query_row("SELECT position FROM cursor", [], |row| row.get(0)).unwrap();
    let overlay = Arc::new(Overlay::new(cursor));
    let (space, wal) = (Arc::<Space>::default(), Arc::<WalGauge>::default());
    let now = Timestamp::parse("2026-01-28T10:00:00Z").unwrap();
    let intake = Intake::open(
        Arc::clone(&folder),
        Arc::clone(&overlay),
        Arc::clone(&space),
        Arc::clone(&wal),
        SETTINGS,
        now,
    )?;
    Ok(Site { intake, overlay, space, wal, events, folder, now })
}

impl Site {
    fn new() -> (TempDir, Self) {
        let place = tempfile::tempdir().unwrap();
        let site = open(place.path()).unwrap();
        (place, site)
    }

    fn accept(&mut self, batch: Vec<Envelope>) -> Vec<Verdict> {
        self.intake.accept(self.now, batch).unwrap()
    }

    fn accept_one(&mut self, envelope: Envelope) -> Verdict {
        self.accept(vec![envelope]).remove(0)
    }

    /// Numbers given to events of the streams named.
    fn post(&mut self, streams: &[&str]) -> Vec<u64> {
        let batch = streams.iter().map(|stream| door(envelope(stream, "x"))).collect();
        self.accept(batch).into_iter().map(seq).collect()
    }

    /// Applies what is waiting, as the listener does, from hand-off and log alike.
    fn project(&mut self, max: usize) -> usize {
        let after = self.cursor();
        let events = match self.overlay.take(after, max) {
            Taken::Events(events) => events,
            Taken::Empty => return 0,
            Taken::Gap => LogReader::open(&self.folder)
                .unwrap()
                .read_after(after, max)
                .unwrap()
                .into_iter()
                .map(|message| match message {
                    Message::Event(event) => event,
                    other => panic!("{other:?}"),
                })
                .collect(),
        };
        let tx = self.events.transaction().unwrap();
        idempotency::record(&tx, &events).unwrap();
        for event in &events {
            assert_eq!(
                event.position,
                after + 1 + i64::try_from(events.iter().position(|e| e == event).unwrap()).unwrap()
            );
            let (tenant, stream) = (event.envelope.tenant.as_str(), event.envelope.stream.as_str());
            tx.execute("INSERT OR IGNORE INTO tenant (name) VALUES (?)", [tenant]).unwrap();
            tx.execute(
                "INSERT INTO stream (tenant_id, stream_key, applied_seq)
                 VALUES ((SELECT tenant_id FROM tenant WHERE name = ?), ?, ?)
                 ON CONFLICT DO UPDATE SET applied_seq = excluded.applied_seq",
                rusqlite::params![tenant, stream, i64::try_from(event.stream_seq).unwrap()],
            )
            .unwrap();
        }
        let cursor = after + i64::try_from(events.len()).unwrap();
        tx.execute("UPDATE cursor SET position = ?", [cursor]).unwrap();
        tx.commit().unwrap();
        self.overlay.projected(cursor);
        events.len()
    }

    fn cursor(&self) -> i64 {
        self.events.query_row("SELECT position FROM cursor", [], |row| row.get(0)).unwrap()
    }

    fn positions_of(&self, process: &str) -> Vec<i64> {
        let tenant = TenantId::parse("t1").unwrap();
        let events = self.overlay.of(&tenant, &ProcessId::parse(process).unwrap());
        events.iter().map(|event| event.position).collect()
    }

    /// Ends this instance and starts another one on the same folder.
    fn restart(self) -> Self {
        let path = self.folder.path().to_path_buf();
        drop(self);
        open(&path).unwrap()
    }
}

/// The same, with an id that we chose.
fn door(envelope: Envelope) -> Envelope {
    Envelope { id_origin: IdOrigin::Door, ..envelope }
}

fn keyed(key: &str, event_id: &str, hash: u8) -> Envelope {
    let key = Some(IdempotencyKey::parse(key).unwrap());
    Envelope { key, hash: PayloadHash([hash; 32]), ..envelope("order-1", event_id) }
}

fn receipt(verdict: Verdict) -> Receipt {
    match verdict {
        Verdict::Accepted(receipt) => receipt,
        other => panic!("{other:?}"),
    }
}

fn seq(verdict: Verdict) -> u64 {
    receipt(verdict).stream_seq
}

/// Every rule about repeats, asked of a site that has accepted (key k1, id e1, payload 1) with `first` as receipt.
fn check_repeats(site: &mut Site, first: &Receipt) {
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
    let heavy = "x".repeat(super::super::overlay::BYTES_MAX);
    let verdict = site.accept_one(Envelope { payload: heavy.into(), ..keyed("k1", "e1", 1) });
    let first = receipt(verdict);
    assert_eq!(site.accept_one(keyed("k2", "e2", 1)), Verdict::Unavailable(BACKLOG_FULL));
    assert_eq!(site.accept_one(keyed("k1", "e1", 1)), Verdict::Replayed(first));
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

#[test]
fn a_backlog_that_does_not_fit_is_caught_up_with_before_anything_new_is_taken() {
    let (place, mut site) = Site::new();
    // Each takes a third of the room; intake lets them in because the check comes before.
    let third = "x".repeat(super::super::overlay::BYTES_MAX / 3);
    for number in 1..=6 {
        let overlay = Arc::new(Overlay::new(number - 1));
        site.intake.overlay = overlay;
        let envelope =
            Envelope { payload: third.clone().into(), ..envelope("a", &format!("e{number}")) };
        assert_eq!(seq(site.accept_one(envelope)), number.unsigned_abs());
    }
    drop(site);
    let mut site = open(place.path()).unwrap();
    assert_eq!(site.accept_one(door(envelope("a", "x"))), Verdict::Unavailable(CATCHING_UP));
    assert_eq!(site.overlay.backlog().0, 6);
    assert_eq!(site.project(10), 3, "what fits is handed over");
    assert_eq!(site.project(1), 1, "the rest comes from the log");
    assert_eq!(seq(site.accept_one(door(envelope("a", "x")))), 7, "the rest fits now");
    assert_eq!(site.positions_of("a"), [5, 6, 7]);
    assert!(matches!(
        site.accept_one(envelope("a", "e4")),
        Verdict::Replayed(Receipt { stream_seq: 4, .. })
    ));
    while site.project(2) > 0 {}
    assert_eq!(site.cursor(), 7);
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
