//! What the log writer promises, against a store that fails by script, with time moved by hand.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::channel;
use parking_lot::Mutex;

use super::*;
use crate::component::End;
use crate::domain::ids::{ProcessId, TenantId};
use crate::domain::log_row::Level;
use crate::domain::time::Timestamp;
use crate::mailbox::{Address, ChannelMailbox, Letter};
use crate::store::Result as StoreResult;

const SOON: Duration = Duration::from_secs(10);

/// What the store does with the next writes; then it takes everything.
#[derive(Default)]
struct Script {
    errors: VecDeque<StoreError>,
    /// The messages of each batch written.
    batches: Vec<Vec<String>>,
    /// Refuses every batch that holds this message.
    poison: Option<&'static str>,
    /// Fails for no known reason for every batch that holds this message.
    unclear: Option<&'static str>,
}

#[derive(Clone, Default)]
struct FakeSession(Arc<Mutex<Script>>);

impl LogSession for FakeSession {
    fn write(&mut self, rows: &[LogRow]) -> StoreResult<()> {
        let mut script = self.0.lock();
        if let Some(error) = script.errors.pop_front() {
            return Err(error);
        }
        if rows.iter().any(|row| Some(&*row.message) == script.poison) {
            return Err(StoreError::Refused { call: "write logs", source: "poison".into() });
        }
        if rows.iter().any(|row| Some(&*row.message) == script.unclear) {
            return Err(StoreError::Unclear { call: "write logs", source: "ORA-00600".into() });
        }
        script.batches.push(rows.iter().map(|row| row.message.to_string()).collect());
        Ok(())
    }
}

struct Bench {
    writer: Writer,
    store: FakeSession,
    metrics: Arc<Metrics>,
    full: Arc<AtomicBool>,
    post: Sender<LogPosting>,
    postings: Receiver<LogPosting>,
    mailbox: Arc<ChannelMailbox>,
    letters: Receiver<Letter>,
    now: Instant,
}

impl Bench {
    fn new(batch_rows: usize) -> Self {
        let (post, postings) = channel::bounded(1000);
        let (mailbox, letters) = ChannelMailbox::new();
        let store = FakeSession::default();
        let metrics = Arc::new(Metrics::new());
        let full = Arc::new(AtomicBool::new(false));
        let shedding = {
            let full = Arc::clone(&full);
            Arc::new(move || full.load(Ordering::Relaxed))
        };
        let session = Box::new(store.clone());
        let writer = Writer::new(session, batch_rows, shedding, Arc::clone(&metrics));
        let now = Instant::now();
        Self { writer, store, metrics, full, post, postings, mailbox, letters, now }
    }

    fn send(&self, messages: &[&str]) {
        self.post.send(LogPosting { rows: rows(messages), reply: None, room: None }).unwrap();
    }

    fn ask(&self, slot: u32, messages: &[&str]) {
        let reply = ReplyTo {
            mailbox: Arc::clone(&self.mailbox) as Arc<_>,
            address: Address { slot, generation: 0 },
            context: Box::new(()),
        };
        self.post
            .send(LogPosting { rows: rows(messages), reply: Some(reply), room: None })
            .unwrap();
    }

    fn fail(&self, error: StoreError) {
        self.store.0.lock().errors.push_back(error);
    }

    fn pass_after(&mut self, pause: Duration) {
        self.now += pause;
        self.writer.pass(&self.postings, self.now).unwrap();
    }

    fn pass(&mut self) {
        self.pass_after(Duration::ZERO);
    }

    /// One pass over three postings, of which the second holds a row that is bad: the others are written.
    fn pass_with_a_bad_one(&mut self) {
        self.ask(1, &["a"]);
        self.ask(2, &["bad", "b"]);
        self.ask(3, &["c"]);
        self.pass();
        assert_eq!(self.batches(), [["a"], ["c"]]);
    }

    fn batches(&self) -> Vec<Vec<String>> {
        self.store.0.lock().batches.clone()
    }

    /// Slot and answer of each letter, in words.
    fn answers(&self) -> Vec<String> {
        let said = |letter: Letter| match letter.answer {
            Answer::Logged(count) => format!("{}: {count} logged", letter.address.slot),
            Answer::Unavailable(why) | Answer::HeldBack(why) => {
                format!("{}: {why}", letter.address.slot)
            }
            Answer::Verdicts(_) => unreachable!("nobody posted envelopes"),
        };
        self.letters.try_iter().map(said).collect()
    }
}

fn rows(messages: &[&str]) -> Vec<LogRow> {
    let (tenant, process) = (TenantId::parse("contoso").unwrap(), ProcessId::parse("p").unwrap());
    let row = |message: &&str| {
        let (tenant, process) = (tenant.clone(), process.clone());
        LogRow::plain(tenant, process, Level::Info, *message, Timestamp::default())
    };
    messages.iter().map(row).collect()
}

fn busy() -> StoreError {
    StoreError::Busy { call: "write logs", source: "locked".into() }
}

fn no_space() -> StoreError {
    StoreError::NoSpace { call: "write logs", why: "the disk is full", source: "full".into() }
}

#[test]
fn a_row_nobody_waits_for_is_written_when_the_timer_runs_out() {
    let mut bench = Bench::new(10);
    bench.send(&["a"]);
    bench.pass();
    bench.pass_after(TIMER / 2);
    assert_eq!(bench.batches(), Vec::<Vec<String>>::new());
    assert_eq!(bench.writer.due_at(), Some(bench.now + TIMER / 2));
    bench.pass_after(TIMER / 2);
    assert_eq!(bench.batches(), [["a"]]);
    assert_eq!((bench.writer.due_at(), bench.metrics.log_rows.get()), (None, 1));
}

#[test]
fn a_full_batch_is_written_at_once_and_the_rest_waits() {
    let mut bench = Bench::new(2);
    for message in ["a", "b", "c", "d", "e"] {
        bench.send(&[message]);
    }
    bench.pass();
    assert_eq!(bench.batches(), [["a", "b"], ["c", "d"]]);
    assert!(!bench.writer.is_empty());
}

#[test]
fn somebody_who_waits_is_answered_after_the_commit_without_the_timer() {
    let mut bench = Bench::new(10);
    bench.send(&["a"]);
    bench.ask(7, &["b", "c"]);
    bench.ask(8, &[]);
    bench.pass();
    assert_eq!(bench.batches(), [["a", "b", "c"]]);
    assert_eq!(bench.answers(), ["7: 2 logged", "8: 0 logged"]);
}

#[test]
fn a_posting_is_never_split_over_two_commits() {
    let mut bench = Bench::new(2);
    bench.send(&["a"]);
    bench.ask(1, &["b", "c", "d"]);
    bench.pass();
    assert_eq!(bench.batches(), [["a", "b", "c", "d"]]);
}

#[test]
fn a_failed_write_keeps_its_rows_in_order_and_is_tried_again_after_a_growing_pause() {
    let mut bench = Bench::new(1);
    (0..3).for_each(|_| bench.fail(busy()));
    bench.ask(1, &["a"]);
    bench.send(&["b"]);
    let mut pauses = Vec::new();
    bench.pass();
    while let Some(due_at) = bench.writer.due_at() {
        pauses.push(due_at - bench.now);
        bench.send(&["late"]);
        bench.pass();
        bench.pass_after(due_at - bench.now);
    }
    assert_eq!(pauses.len(), 3);
    for (pause, most) in pauses.iter().zip([50, 100, 200]) {
        let most = Duration::from_millis(most);
        assert!((most / 2..=most).contains(pause), "{pause:?} of {most:?}");
    }
    assert_eq!(bench.batches().concat(), ["a", "b", "late", "late", "late"]);
    assert_eq!(bench.answers(), ["1: 1 logged"]);
    assert_eq!(bench.metrics.log_rows_shed.get(), 0);
}

#[test]
fn a_store_that_takes_no_writes_sends_those_who_wait_away_and_keeps_the_rest() {
    let mut bench = Bench::new(10);
    bench.fail(no_space());
    bench.send(&["kept"]);
    bench.ask(1, &["again later"]);
    bench.pass();
    assert_eq!(bench.answers(), [format!("1: {FAILING}")]);
    bench.pass_after(SOON);
    assert_eq!(bench.batches(), [["kept"]]);
}

#[test]
fn nobody_waits_for_ever() {
    let mut bench = Bench::new(10);
    (0..2).for_each(|_| bench.fail(busy()));
    bench.ask(1, &["a"]);
    bench.pass();
    assert_eq!(bench.answers(), Vec::<String>::new());
    bench.pass_after(PATIENCE);
    assert_eq!(bench.answers(), [format!("1: {FAILING}")]);
    assert!(bench.writer.is_empty());
}

#[test]
fn while_the_store_fails_rows_are_kept_up_to_a_bound_and_the_channel_fills() {
    let mut bench = Bench::new(10);
    bench.fail(busy());
    let many = vec!["x"; 10_000];
    for _ in 0..7 {
        bench.send(&many);
    }
    bench.pass();
    bench.pass();
    assert_eq!((bench.writer.kept_rows, bench.postings.len()), (KEPT_ROWS_MAX, 2));
    assert!(!bench.writer.has_room());
    bench.pass_after(SOON);
    bench.pass();
    assert_eq!(bench.metrics.log_rows.get(), 70_000);
}

#[test]
fn while_the_disk_is_nearly_full_rows_are_shed_and_counted() {
    let mut bench = Bench::new(10);
    bench.full.store(true, Ordering::Relaxed);
    bench.send(&["a", "b"]);
    bench.ask(1, &["c"]);
    bench.pass();
    assert_eq!(bench.answers(), [format!("1: {SHEDDING}")]);
    assert_eq!(bench.metrics.log_rows_shed.get(), 2, "who waits can send again");
    bench.full.store(false, Ordering::Relaxed);
    bench.ask(2, &["d"]);
    bench.pass();
    assert_eq!(bench.batches(), [["d"]]);
}

#[test]
fn a_posting_that_fails_for_no_known_reason_is_lost_only_where_others_are_written() {
    let mut bench = Bench::new(10);
    bench.store.0.lock().unclear = Some("bad");
    bench.pass_with_a_bad_one();
    let refused = format!("2: {REFUSED}");
    assert_eq!(bench.answers(), ["1: 1 logged", "3: 1 logged", &refused]);
    // Where nothing is written, all of it is kept.
    bench.ask(4, &["bad"]);
    bench.pass();
    assert_eq!(bench.batches().len(), 2);
    assert_eq!(bench.answers(), Vec::<String>::new());
    assert!(!bench.writer.is_empty());
}

#[test]
fn a_row_that_the_store_refuses_takes_only_its_own_posting_with_it() {
    let mut bench = Bench::new(10);
    bench.store.0.lock().poison = Some("bad");
    bench.pass_with_a_bad_one();
    let refused = format!("2: {REFUSED}");
    assert_eq!(bench.answers(), ["1: 1 logged", &refused, "3: 1 logged"]);
}

#[test]
fn an_error_on_a_commit_stops_the_writer_and_answers_nobody() {
    let mut bench = Bench::new(10);
    bench.fail(StoreError::Io { call: "write logs", source: "fsync".into() });
    bench.ask(1, &["a"]);
    let error = bench.writer.pass(&bench.postings, bench.now).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }));
    assert_eq!(bench.answers(), Vec::<String>::new());
}

#[test]
fn the_stop_writes_what_is_kept_and_what_the_channel_holds() {
    let bench = Bench::new(1000);
    bench.fail(busy());
    (0..500).for_each(|_| bench.send(&["x"]));
    let (ended, names) = channel::unbounded();
    let mut component = start(
        "logs-1".into(),
        Box::new(bench.store.clone()),
        bench.postings.clone(),
        7,
        Arc::new(|| false),
        Arc::clone(&bench.metrics),
        ended,
    )
    .unwrap();
    assert!(matches!(component.join_by(Instant::now() + SOON), End::Clean));
    assert_eq!(names.recv_timeout(SOON).unwrap(), "logs-1");
    assert_eq!(bench.batches().concat().len(), 500);
}

#[test]
fn a_running_writer_answers_and_outlives_the_last_sender() {
    let bench = Bench::new(1000);
    let (ended, names) = channel::unbounded();
    let mut component = start(
        "logs-1".into(),
        Box::new(bench.store.clone()),
        bench.postings.clone(),
        1000,
        Arc::new(|| false),
        Arc::clone(&bench.metrics),
        ended,
    )
    .unwrap();
    bench.ask(1, &["a"]);
    let letter = bench.letters.recv_timeout(SOON).unwrap();
    assert!(matches!(letter.answer, Answer::Logged(1)));
    drop(bench.post);
    assert!(names.is_empty());
    assert!(matches!(component.join_by(Instant::now() + SOON), End::Clean));
}
