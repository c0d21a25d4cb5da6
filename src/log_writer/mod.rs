//! Writes log rows in bulk. This module is the `logs-N` thread: it gathers postings and writes them, many with one
//! commit [BL2].
//!
//! A batch is written when it is large enough, when somebody waits for its commit and no more is there to join it, or
//! when its oldest row has waited [`TIMER`]. A posting is never split over two commits, so that an answer is true for
//! all of its rows.
//!
//! A failed write keeps its rows and is tried again, at growing intervals. Up to [`KEPT_ROWS_MAX`] rows are kept
//! meanwhile; then nothing is taken from the channel any more, the channel fills, and the doors answer 503 [BL4].
//! What a source that cannot wait loses is counted, here and nowhere else.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, after, never, select};

use crate::component::{Component, Stop, await_work, begin_step};
use crate::domain::log_row::LogRow;
use crate::mailbox::{Answer, ReplyTo, wake_all};
use crate::room::Load;
use crate::store::{LogSession, StoreError};
use crate::telemetry::metrics::{Metrics, StoreCall};

/// How long a row waits for company where nobody waits for its commit.
pub const TIMER: Duration = Duration::from_millis(200);

/// Rows kept while the store fails: some 20 MB of lines of the usual length.
pub const KEPT_ROWS_MAX: usize = 50_000;

/// How long somebody waits for a commit that keeps failing, before being told to try again later.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The pause after the first failed write; it doubles up to [`PAUSE_MAX`], and each is drawn from its upper half.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Writes that may fail at the stop before the rows are given up: about 3 s in all.
const LAST_TRIES: u32 = 6;

const SHEDDING: &str = "log rows are not taken: the disk is nearly full";
const FAILING: &str = "log rows cannot be written at the moment";
const REFUSED: &str = "the store refuses these log rows";

/// Log rows of one request on their way to the store.
pub struct LogPosting {
    pub rows: Vec<LogRow>,
    /// Who waits for the commit; None for a source that cannot wait.
    pub reply: Option<ReplyTo>,
    /// The room they take up, until they are settled. None: the poster bounds itself.
    pub room: Option<Load>,
}

/// Starts a log writer. `shedding` says whether log rows are to be dropped for lack of space.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    name: String,
    session: Box<dyn LogSession>,
    postings: Receiver<LogPosting>,
    batch_rows: usize,
    shedding: Arc<dyn Fn() -> bool + Send + Sync>,
    metrics: Arc<Metrics>,
    ended: Sender<String>,
) -> io::Result<Component> {
    Component::start(name, ended, move |stop| {
        let mut writer = Writer::new(session, batch_rows, shedding, metrics);
        while let Some(taken) = wait(&writer, &postings, &stop) {
            if let Some(posting) = taken {
                writer.take(posting, Instant::now());
            }
            writer.pass(&postings, Instant::now())?;
        }
        drain(&mut writer, &postings)
    })
}

/// Waits for a posting or for the time that the writer asks for. None: it is time to stop.
fn wait(
    writer: &Writer,
    postings: &Receiver<LogPosting>,
    stop: &Stop,
) -> Option<Option<LogPosting>> {
    let timer = writer
        .due_at()
        .map_or_else(never, |due_at| after(due_at.saturating_duration_since(Instant::now())));
    let nothing = never();
    let source = if writer.has_room() { postings } else { &nothing };
    await_work();
    let taken = select! {
        recv(stop.channel()) -> _ => None,
        recv(timer) -> _ => Some(None),
        recv(source) -> posting => match posting {
            Ok(posting) => Some(Some(posting)),
            // Nobody is left to post, so what is kept is all there will be. Ending uninvited would stop the service.
            Err(_) => if writer.is_empty() {
                let _ = stop.channel().recv();
                None
            } else if stop.sleep(TIMER) {
                Some(None)
            } else {
                None
            },
        },
    };
    begin_step();
    taken
}

/// Writes what is kept and what the channel still holds. Rows that cannot be written by then are lost and counted.
fn drain(writer: &mut Writer, postings: &Receiver<LogPosting>) -> anyhow::Result<()> {
    loop {
        begin_step();
        writer.hurry();
        writer.pass(postings, Instant::now())?;
        if writer.is_empty() && postings.is_empty() {
            return Ok(());
        }
        if writer.tries >= LAST_TRIES {
            writer.give_up(postings);
            return Ok(());
        }
        let pause = writer.due_at().map(|due_at| due_at.saturating_duration_since(Instant::now()));
        thread::sleep(pause.unwrap_or_default());
    }
}

/// A posting, and since when it is kept.
struct Kept {
    posting: LogPosting,
    since: Instant,
}

/// One posting's part of the batch.
struct Part {
    /// Where its rows end in the batch.
    end: usize,
    reply: Option<ReplyTo>,
    room: Option<Load>,
    since: Instant,
}

/// Gathers postings, writes them and answers whoever waits. Driven by [`Writer::pass`].
pub struct Writer {
    session: Box<dyn LogSession>,
    batch_rows: usize,
    shedding: Arc<dyn Fn() -> bool + Send + Sync>,
    metrics: Arc<Metrics>,
    kept: VecDeque<Kept>,
    kept_rows: usize,
    /// How many of the kept postings somebody waits for.
    waiting: usize,
    /// Writes that failed since the last one that did not.
    tries: u32,
    /// When to write again after a failure.
    retry_at: Option<Instant>,
    jitter: RandomState,
    /// Rows are being shed: said once, not with every posting.
    is_shedding: bool,
}

impl Writer {
    /// A writer of batches of `batch_rows` rows, more where the last posting has more.
    pub fn new(
        session: Box<dyn LogSession>,
        batch_rows: usize,
        shedding: Arc<dyn Fn() -> bool + Send + Sync>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            session,
            batch_rows: batch_rows.max(1),
            shedding,
            metrics,
            kept: VecDeque::new(),
            kept_rows: 0,
            waiting: 0,
            tries: 0,
            retry_at: None,
            jitter: RandomState::new(),
            is_shedding: false,
        }
    }

    /// Keeps a posting for the next write.
    pub fn take(&mut self, posting: LogPosting, now: Instant) {
        self.kept_rows += posting.rows.len();
        self.waiting += usize::from(posting.reply.is_some());
        self.kept.push_back(Kept { posting, since: now });
    }

    /// Whether one more posting may be taken.
    pub fn has_room(&self) -> bool {
        self.kept_rows < KEPT_ROWS_MAX
    }

    /// Whether everything taken is settled.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// When [`Writer::pass`] has something to do without a further posting. None: only a posting gives it work.
    pub fn due_at(&self) -> Option<Instant> {
        let oldest = self.kept.front()?.since;
        Some(self.retry_at.unwrap_or(oldest + TIMER))
    }

    /// Takes what is in the channel and writes what is due: at most about a channel full of rows.
    ///
    /// # Errors
    /// What no later try can mend. The caller stops, and nobody is answered.
    pub fn pass(
        &mut self,
        postings: &Receiver<LogPosting>,
        now: Instant,
    ) -> Result<(), StoreError> {
        let mut passed = 0;
        loop {
            self.fill(postings, now);
            let is_shedding = (self.shedding)();
            if is_shedding != self.is_shedding {
                let what =
                    if is_shedding { "shed: the disk is nearly full" } else { "written again" };
                log::warn!("log rows are {what}");
                self.is_shedding = is_shedding;
            }
            if is_shedding {
                self.shed();
                return Ok(());
            }
            let failing = self.retry_at.is_some_and(|retry_at| now < retry_at);
            let due = self.kept_rows >= self.batch_rows
                || self.waiting > 0
                || self.retry_at.is_some()
                || self.kept.front().is_some_and(|oldest| now >= oldest.since + TIMER);
            if self.kept.is_empty() || failing || !due || passed >= KEPT_ROWS_MAX {
                return Ok(());
            }
            passed += self.write(now)?;
        }
    }

    /// Makes everything kept due at once.
    fn hurry(&mut self) {
        let long_ago = Instant::now().checked_sub(TIMER);
        if let (Some(oldest), Some(long_ago)) = (self.kept.front_mut(), long_ago) {
            oldest.since = oldest.since.min(long_ago);
        }
    }

    /// Takes postings until there is a batch; while the store fails, until there is no room.
    fn fill(&mut self, postings: &Receiver<LogPosting>, now: Instant) {
        let rows_max = if self.tries == 0 { self.batch_rows } else { KEPT_ROWS_MAX };
        while self.kept_rows < rows_max
            && let Ok(posting) = postings.try_recv()
        {
            self.take(posting, now);
        }
    }

    /// Writes one batch. Returns how many rows it settled, at least one where anything is kept.
    fn write(&mut self, now: Instant) -> Result<usize, StoreError> {
        let mut rows = Vec::with_capacity(self.kept_rows);
        let mut parts = Vec::with_capacity(self.kept.len());
        while rows.len() < self.batch_rows
            && let Some(Kept { mut posting, since }) = self.kept.pop_front()
        {
            rows.append(&mut posting.rows);
            self.waiting -= usize::from(posting.reply.is_some());
            parts.push(Part { end: rows.len(), reply: posting.reply, room: posting.room, since });
        }
        self.kept_rows -= rows.len();
        let settled = rows.len().max(1);
        match self.write_rows(&rows) {
            Ok(()) => answer(parts, Answer::Logged),
            Err(error @ StoreError::Unclear { .. }) if parts.len() > 1 => {
                log::error!("nobody knows why a write fails, its postings go one by one: {error}");
                self.write_apart(rows, parts, now)?;
            }
            Err(error) if error.is_transient() => self.put_off(rows, parts, now, &error),
            Err(StoreError::Refused { .. }) => self.write_apart(rows, parts, now)?,
            Err(error) => return Err(error),
        }
        Ok(settled)
    }

    fn write_rows(&mut self, rows: &[LogRow]) -> Result<(), StoreError> {
        let began = Instant::now();
        self.session.write(rows)?;
        let took = began.elapsed();
        self.metrics.store_call(StoreCall::WriteLogs, took);
        self.metrics.log_batch_seconds.observe(took.as_secs_f64());
        self.metrics.log_rows.inc_by(count(rows.len()));
        self.tries = 0;
        self.retry_at = None;
        Ok(())
    }

    /// Writes each posting by itself, because one of them holds a row that the store refuses and always will, or may be
    /// to blame for a failure that nobody understands. Who is to blame for that shows by the others: if they are written,
    /// its rows are lost and counted; if not, all are kept.
    fn write_apart(
        &mut self,
        rows: Vec<LogRow>,
        parts: Vec<Part>,
        now: Instant,
    ) -> Result<(), StoreError> {
        let mut written = false;
        let mut unclear = Vec::new();
        for (rows, part) in split(rows, parts) {
            let part = vec![Part { end: rows.len(), ..part }];
            match self.write_rows(&rows) {
                Ok(()) => {
                    written = true;
                    answer(part, Answer::Logged);
                }
                Err(error @ StoreError::Unclear { .. }) => unclear.push((rows, part, error)),
                Err(error) if error.is_transient() => self.put_off(rows, part, now, &error),
                Err(error @ StoreError::Refused { .. }) => self.lose(&rows, part, &error),
                Err(error) => return Err(error),
            }
        }
        // Each that is put off goes before those that are kept.
        for (rows, part, error) in unclear.into_iter().rev() {
            if written {
                self.lose(&rows, part, &error);
            } else {
                self.put_off(rows, part, now, &error);
            }
        }
        Ok(())
    }

    /// Gives up rows that the store does not take, while it takes others.
    fn lose(&self, rows: &[LogRow], part: Vec<Part>, error: &StoreError) {
        log::error!("{} log rows are lost: {error}", rows.len());
        self.metrics.log_rows_shed.inc_by(count(rows.len()));
        answer(part, |_| Answer::Unavailable(REFUSED));
    }

    /// Keeps the rows of a failed write, in their place, for a later try. Whoever waits is sent away where the store
    /// takes no writes, or after [`PATIENCE`]: they can send their rows again, and the others cannot.
    fn put_off(&mut self, rows: Vec<LogRow>, parts: Vec<Part>, now: Instant, error: &StoreError) {
        log::warn!("{} log rows put off: {error}", rows.len());
        let ceiling = PAUSE_MIN.saturating_mul(1 << self.tries.min(16)).min(PAUSE_MAX);
        let part = u32::try_from(self.jitter.hash_one((self.tries, now)) % 1000).unwrap_or(0);
        self.retry_at = Some(now + ceiling / 2 + ceiling / 2000 * part);
        self.tries += 1;
        for (rows, part) in split(rows, parts).into_iter().rev() {
            self.kept_rows += rows.len();
            self.waiting += usize::from(part.reply.is_some());
            let posting = LogPosting { rows, reply: part.reply, room: part.room };
            self.kept.push_front(Kept { posting, since: part.since });
        }
        let closed = matches!(error, StoreError::NoSpace { .. });
        self.send_away(FAILING, |kept| closed || now >= kept.since + PATIENCE);
    }

    /// Drops everything kept: the disk is nearly full, and events come first.
    fn shed(&mut self) {
        self.send_away(SHEDDING, |_| true);
        self.metrics.log_rows_shed.inc_by(count(self.kept_rows));
        self.kept.clear();
        self.kept_rows = 0;
        self.tries = 0;
        self.retry_at = None;
    }

    /// Answers those who wait and are `chosen` that nothing was written, and forgets their rows.
    fn send_away(&mut self, why: &'static str, chosen: impl Fn(&Kept) -> bool) {
        if self.waiting == 0 {
            return;
        }
        let mut mailboxes = Vec::new();
        for kept in std::mem::take(&mut self.kept) {
            if kept.posting.reply.is_some() && chosen(&kept) {
                self.kept_rows -= kept.posting.rows.len();
                self.waiting -= 1;
                let put = |reply: ReplyTo| reply.put(Answer::Unavailable(why));
                mailboxes.extend(kept.posting.reply.map(put));
            } else {
                self.kept.push_back(kept);
            }
        }
        wake_all(mailboxes);
    }

    /// Counts everything kept or still in the channel as lost, and sends away whoever waits for it.
    fn give_up(&mut self, postings: &Receiver<LogPosting>) {
        while let Ok(posting) = postings.try_recv() {
            self.take(posting, Instant::now());
        }
        self.send_away(FAILING, |_| true);
        if self.kept_rows > 0 {
            log::error!("{} log rows are lost: the store fails at the stop", self.kept_rows);
        }
        self.metrics.log_rows_shed.inc_by(count(self.kept_rows));
        self.kept.clear();
        self.kept_rows = 0;
    }
}

/// The batch in postings again.
fn split(mut rows: Vec<LogRow>, parts: Vec<Part>) -> Vec<(Vec<LogRow>, Part)> {
    let mut pairs: Vec<_> = Vec::with_capacity(parts.len());
    let starts: Vec<usize> =
        std::iter::once(0).chain(parts.iter().map(|part| part.end)).take(parts.len()).collect();
    for (part, start) in parts.into_iter().zip(starts).rev() {
        pairs.push((rows.split_off(start), part));
    }
    pairs.reverse();
    pairs
}

/// Answers whoever waits for a part of the batch with what `say` makes of its number of rows.
fn answer(parts: Vec<Part>, say: impl Fn(usize) -> Answer) {
    let mut start = 0;
    let mut mailboxes = Vec::new();
    for part in parts {
        // First, so that whoever has the answer finds the room.
        drop(part.room);
        if let Some(reply) = part.reply {
            mailboxes.push(reply.put(say(part.end - start)));
        }
        start = part.end;
    }
    wake_all(mailboxes);
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}
