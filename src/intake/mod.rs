//! Makes posted events durable, many with one commit, and answers whoever asked. This module is the intake thread.
//!
//! There is no timer: the commit in flight is the window in which the next batch gathers. What must stay true: every
//! posting is answered once, also while the service stops, and a request is never split over two commits.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender};
use crossbeam::select;

use crate::component::{Component, await_work, begin_step};
use crate::domain::event::{Envelope, Verdict};
use crate::domain::time::Timestamp;
use crate::mailbox::{Answer, ReplyTo, wake_all};
use crate::room::Load;
use crate::store::{IntakeSession, StoreError};
use crate::telemetry::metrics::{ChannelLabel, Metrics, PoolLabel, StoreCall};
use crate::telemetry::traces::Durable;

/// Events of one commit, as long as no single request has more. Twice as many save no more time and make everybody
/// wait longer.
pub const EVENTS_PER_COMMIT_MAX: usize = 2000;

/// Payload bytes of one commit, as long as no single request has more.
pub const BYTES_PER_COMMIT_MAX: usize = 8 * 1024 * 1024;

/// After a batch that the store failed on for no known reason so many postings go one by one: those that were in it are
/// sent again, and the one that may be to blame keeps nobody company.
const ALONE: u32 = 64;

/// What is accepted and waits to be applied, as a pool of which a tenant has a share.
const BACKLOG: PoolLabel = PoolLabel { pool: "backlog" };

/// Envelopes of one request on their way to the store, all of one tenant. Answered with one verdict each.
pub struct Posting {
    pub envelopes: Vec<Envelope>,
    pub reply: ReplyTo,
    /// The room it takes up, until it is answered. None: the poster bounds itself.
    pub room: Option<Load>,
    /// The span that is open until it is answered. None: it is not traced.
    pub traced: Option<Box<Durable>>,
}

impl Posting {
    fn bytes(&self) -> usize {
        payload_bytes(&self.envelopes)
    }
}

/// How long the payloads of `envelopes` are together.
pub fn payload_bytes(envelopes: &[Envelope]) -> usize {
    envelopes.iter().map(|envelope| envelope.payload.len()).sum()
}

/// Starts the intake thread. `postings` is bounded by the service; `clock` is the store's.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    mut session: Box<dyn IntakeSession>,
    postings: Receiver<Posting>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    metrics: Arc<Metrics>,
    ended: Sender<String>,
) -> io::Result<Component> {
    Component::start("intake", ended, move |stop| {
        let depth = metrics.channel_depth.get_or_create_owned(&ChannelLabel { channel: "intake" });
        // Seen from the start, at zero.
        let _ = metrics.held_back.get_or_create(&BACKLOG);
        let mut stopping = false;
        // So many postings are still made durable one by one.
        let mut alone = 0u32;
        loop {
            await_work();
            let first = if stopping {
                postings.try_recv().ok()
            } else {
                select! {
                    recv(postings) -> posting => match posting {
                        Ok(posting) => Some(posting),
                        // Nobody can post any more; what is left is to wait for the stop.
                        Err(_) => stop.channel().recv().ok().map(|never| match never {}),
                    },
                    recv(stop.channel()) -> _stop => None,
                }
            };
            begin_step();
            // What was posted before the stop is answered like everything else.
            stopping = stopping || stop.is_set();
            let Some(first) = first else {
                if stopping && postings.is_empty() {
                    return Ok(());
                }
                continue;
            };
            let batch = if alone > 0 { vec![first] } else { gather(first, &postings) };
            alone = alone.saturating_sub(1);
            depth.set(i64::try_from(postings.len()).unwrap_or(i64::MAX));
            let begun = Instant::now();
            let outcome = pass(session.as_mut(), batch, clock(), &metrics);
            metrics.store_call(StoreCall::Accept, begun.elapsed());
            if let Ok(Passed::Unclear) = outcome {
                alone = ALONE;
            }
            if let Err(error) = outcome {
                // Whoever waits in line gets the same answer now, not silence.
                let why = reason(&error);
                let waiting = postings.try_iter().take(postings.len());
                let waiting = waiting.map(|posting| (0, posting.traced, posting.reply));
                answer(waiting, |_| Answer::Unavailable(why));
                return Err(error.into());
            }
        }
    })
}

/// How one pass ended for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// Everything is answered as the store decided, or nothing was to be had just now.
    Well,
    /// The store failed for what may be the fault of one posting of the batch: everybody had better send again, and the
    /// others should not be in one batch with that one.
    Unclear,
}

/// What is there, up to the bounds of a commit.
fn gather(first: Posting, postings: &Receiver<Posting>) -> Vec<Posting> {
    let (mut events, mut bytes) = (first.envelopes.len(), first.bytes());
    let mut batch = vec![first];
    while events < EVENTS_PER_COMMIT_MAX
        && bytes < BYTES_PER_COMMIT_MAX
        && let Ok(posting) = postings.try_recv()
    {
        events += posting.envelopes.len();
        bytes += posting.bytes();
        batch.push(posting);
    }
    batch
}

/// Makes one batch durable and answers everybody in it, whatever happens. Repeats are counted: they are processed
/// with this answer, and nobody sees them again.
///
/// # Errors
/// What must stop the service. What may pass by itself is answered with [`Answer::Unavailable`] and is no error.
pub fn pass(
    session: &mut dyn IntakeSession,
    batch: Vec<Posting>,
    now: Timestamp,
    metrics: &Metrics,
) -> Result<Passed, StoreError> {
    let mut envelopes =
        Vec::with_capacity(batch.iter().map(|posting| posting.envelopes.len()).sum());
    let mut asked = Vec::with_capacity(batch.len());
    let mut rooms = Vec::with_capacity(batch.len());
    for posting in batch {
        asked.push((posting.envelopes.len(), posting.traced, posting.reply));
        rooms.push(posting.room);
        envelopes.extend(posting.envelopes);
    }
    let outcome = session.accept(now, envelopes);
    // Before anybody is answered, so that whoever has an answer finds the room.
    drop(rooms);
    match outcome {
        Ok(verdicts) => {
            let is_repeat = |verdict: &&Verdict| matches!(verdict, Verdict::Replayed(_));
            let repeats = verdicts.iter().filter(is_repeat).count();
            if repeats > 0 {
                metrics.processed("duplicate", u64::try_from(repeats).unwrap_or(u64::MAX));
            }
            let mut verdicts = verdicts.into_iter();
            answer(asked, |count| {
                let answer = whole(verdicts.by_ref().take(count).collect());
                if let Answer::HeldBack(_) = answer {
                    metrics.held_back.get_or_create(&BACKLOG).inc();
                }
                answer
            });
            Ok(Passed::Well)
        }
        Err(error) => {
            let why = reason(&error);
            answer(asked, |_| Answer::Unavailable(why));
            let unclear = matches!(error, StoreError::Unclear { .. } | StoreError::Refused { .. });
            if unclear {
                log::error!("a batch was not accepted: {:#}", anyhow::Error::from(error));
                Ok(Passed::Unclear)
            } else if error.is_transient() {
                log::warn!("a batch was not accepted: {:#}", anyhow::Error::from(error));
                Ok(Passed::Well)
            } else {
                Err(error)
            }
        }
    }
}

/// The answer to one request. What does not fit now is refused whole, so that its sender can send the same again: the
/// store takes either everything that is new of a tenant in a call or nothing of it ([`IntakeSession::accept`]), and a
/// request has one tenant, so nothing of it was accepted.
fn whole(verdicts: Vec<Verdict>) -> Answer {
    let refused = verdicts.iter().find_map(|verdict| match verdict {
        Verdict::Unavailable(why) => Some(Answer::Unavailable(why)),
        Verdict::HeldBack(why) => Some(Answer::HeldBack(why)),
        Verdict::Accepted(_)
        | Verdict::Replayed(_)
        | Verdict::KeyReused
        | Verdict::EventIdReused => None,
    });
    match refused {
        Some(answer) => {
            let accepted = verdicts.iter().any(|verdict| matches!(verdict, Verdict::Accepted(_)));
            assert!(!accepted, "the store took a part of a request: {verdicts:?}");
            answer
        }
        None => Answer::Verdicts(verdicts),
    }
}

/// One posting that waits for its answer: how many envelopes it has, its span, and who asks.
type Asked = (usize, Option<Box<Durable>>, ReplyTo);

fn answer(asked: impl IntoIterator<Item = Asked>, mut of: impl FnMut(usize) -> Answer) {
    let answered = asked.into_iter().map(|(count, traced, reply)| {
        let answer = of(count);
        if let Some(durable) = traced {
            durable.answered(&answer);
        }
        reply.put(answer)
    });
    wake_all(answered.collect());
}

/// What the callers are told.
fn reason(error: &StoreError) -> &'static str {
    match error {
        StoreError::Busy { .. } => "the store is busy",
        StoreError::NoSpace { why, .. } => why,
        StoreError::Disconnected { .. } => "the store is out of reach",
        StoreError::Unclear { .. } | StoreError::Refused { .. } => {
            "the store did not take this, and nobody knows why"
        }
        StoreError::Unreachable { .. }
        | StoreError::Released { .. }
        | StoreError::Io { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Other { .. } => "the store failed, and the service stops",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::End;
    use crate::domain::event::{IdOrigin, Receipt};
    use crate::domain::ids::{EventId, StreamKey};
    use crate::mailbox::{Address, ChannelMailbox, Letter};
    use crossbeam::channel::{bounded, unbounded};
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(10);

    fn envelope(stream: &str) -> Envelope {
        let event = Envelope::sample("e1", stream, "OrderCreated");
        Envelope { id_origin: IdOrigin::Door, ..event }
    }

    fn posting(mailbox: &Arc<ChannelMailbox>, slot: u32, streams: &[&str]) -> Posting {
        let address = Address { slot, generation: 0 };
        let mailbox = Arc::clone(mailbox) as Arc<dyn crate::mailbox::Mailbox>;
        Posting {
            envelopes: streams.iter().map(|stream| envelope(stream)).collect(),
            reply: ReplyTo { mailbox, address, context: Box::new(()) },
            room: None,
            traced: None,
        }
    }

    /// Accepts everything but what is told to fail, and tells how large its batches were.
    struct Fake {
        batches: Sender<usize>,
        failure: Option<fn() -> StoreError>,
    }

    impl IntakeSession for Fake {
        fn accept(
            &mut self,
            now: Timestamp,
            batch: Vec<Envelope>,
        ) -> crate::store::Result<Vec<Verdict>> {
            let _ = self.batches.send(batch.len());
            if let Some(failure) = self.failure {
                return Err(failure());
            }
            let accepted = |envelope: Envelope| {
                Verdict::Accepted(Receipt {
                    event_id: envelope.event_id,
                    stream: envelope.stream,
                    stream_seq: 1,
                    received_at: now,
                })
            };
            Ok(batch.into_iter().map(accepted).collect())
        }
    }

    fn streams(letter: &Letter) -> Vec<String> {
        let Answer::Verdicts(verdicts) = &letter.answer else { panic!("{:?}", letter.answer) };
        let stream = |verdict: &Verdict| match verdict {
            Verdict::Accepted(receipt) => receipt.stream.to_string(),
            other => panic!("{other:?}"),
        };
        verdicts.iter().map(stream).collect()
    }

    #[test]
    fn everybody_gets_the_verdicts_on_their_own_events() {
        let (batches, sizes) = unbounded();
        let (mailbox, letters) = ChannelMailbox::new();
        let mut fake = Fake { batches, failure: None };
        let batch = vec![
            posting(&mailbox, 7, &["a", "b"]),
            posting(&mailbox, 8, &[]),
            posting(&mailbox, 9, &["c"]),
        ];
        pass(&mut fake, batch, Timestamp::default(), &Metrics::new()).unwrap();
        assert_eq!(sizes.try_iter().collect::<Vec<_>>(), [3], "one commit for all");
        let letters: Vec<_> = letters.try_iter().collect();
        assert_eq!(letters.iter().map(|letter| letter.address.slot).collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(
            letters.iter().map(streams).collect::<Vec<_>>(),
            [vec!["a", "b"], vec![], vec!["c"]]
        );
    }

    #[test]
    fn a_failure_is_told_to_everybody_and_stops_the_service_only_if_it_must() {
        type Failure = fn() -> StoreError;
        let failures: [(Failure, bool, &str); 4] = [
            (|| StoreError::Busy { call: "c", source: "b".into() }, true, "the store is busy"),
            (
                || StoreError::NoSpace { call: "c", why: "the disk is full", source: "b".into() },
                true,
                "the disk is full",
            ),
            (
                || StoreError::Unclear { call: "c", source: "b".into() },
                true,
                "the store did not take this, and nobody knows why",
            ),
            (
                || StoreError::Io { call: "c", source: "b".into() },
                false,
                "the store failed, and the service stops",
            ),
        ];
        for (failure, goes_on, words) in failures {
            let (mailbox, letters) = ChannelMailbox::new();
            let mut fake = Fake { batches: unbounded().0, failure: Some(failure) };
            let batch = vec![posting(&mailbox, 1, &["a"]), posting(&mailbox, 2, &["b"])];
            assert_eq!(
                pass(&mut fake, batch, Timestamp::default(), &Metrics::new()).is_ok(),
                goes_on,
                "{words}"
            );
            for letter in letters.try_iter().collect::<Vec<_>>() {
                assert!(matches!(letter.answer, Answer::Unavailable(why) if why == words));
            }
        }
    }

    #[test]
    fn a_request_that_does_not_fit_now_is_refused_whole() {
        let receipt = Receipt {
            event_id: EventId::parse("e1").unwrap(),
            stream: StreamKey::parse("s").unwrap(),
            stream_seq: 1,
            received_at: Timestamp::default(),
        };
        let replayed = Verdict::Replayed(receipt.clone());
        let mixed = vec![replayed.clone(), Verdict::KeyReused, Verdict::Unavailable("full")];
        assert!(matches!(whole(mixed), Answer::Unavailable("full")));
        let held_back = vec![replayed.clone(), Verdict::HeldBack("its share")];
        assert!(matches!(whole(held_back), Answer::HeldBack("its share")));
        let known = vec![replayed, Verdict::KeyReused, Verdict::Accepted(receipt)];
        assert!(matches!(whole(known.clone()), Answer::Verdicts(verdicts) if verdicts == known));
    }

    #[test]
    fn a_commit_gathers_what_is_there_within_bounds() {
        let (mailbox, _letters) = ChannelMailbox::new();
        let (sender, postings) = bounded(3000);
        for slot in 0..2500 {
            sender.send(posting(&mailbox, slot, &["a"])).unwrap();
        }
        let first = postings.recv().unwrap();
        assert_eq!(gather(first, &postings).len(), EVENTS_PER_COMMIT_MAX);
        assert_eq!(postings.len(), 500);
        let mut large = posting(&mailbox, 0, &["a"]);
        large.envelopes[0].payload = "x".repeat(BYTES_PER_COMMIT_MAX).into();
        assert_eq!(gather(large, &postings).len(), 1, "a large request has a commit of its own");
    }

    #[test]
    fn what_was_posted_before_the_stop_is_answered() {
        let (batches, sizes) = unbounded();
        let (mailbox, letters) = ChannelMailbox::new();
        let (sender, postings) = bounded(3000);
        for slot in 0..2500 {
            sender.send(posting(&mailbox, slot, &["a"])).unwrap();
        }
        let (ended, names) = unbounded();
        let session = Box::new(Fake { batches, failure: None });
        let clock = Arc::new(Timestamp::default);
        let mut component =
            start(session, postings, clock, Arc::new(Metrics::new()), ended).unwrap();
        assert!(matches!(component.join_by(Instant::now() + SOON), End::Clean));
        assert_eq!(names.recv_timeout(SOON).unwrap(), "intake");
        assert_eq!(letters.try_iter().count(), 2500);
        assert!(sizes.try_iter().all(|size| size <= EVENTS_PER_COMMIT_MAX));
    }

    #[test]
    fn an_error_that_may_not_be_retried_ends_the_thread() {
        let (mailbox, letters) = ChannelMailbox::new();
        // The second one waits in line when the first one fails.
        let (sender, postings) = bounded(2);
        let mut large = posting(&mailbox, 1, &["a"]);
        large.envelopes[0].payload = "x".repeat(BYTES_PER_COMMIT_MAX).into();
        sender.send(large).unwrap();
        sender.send(posting(&mailbox, 2, &["a"])).unwrap();
        let failure: fn() -> StoreError = || StoreError::Io { call: "c", source: "b".into() };
        let session = Box::new(Fake { batches: unbounded().0, failure: Some(failure) });
        let (ended, names) = unbounded();
        let clock = Arc::new(Timestamp::default);
        let mut component =
            start(session, postings, clock, Arc::new(Metrics::new()), ended).unwrap();
        assert_eq!(names.recv_timeout(SOON).unwrap(), "intake");
        let End::Failed(error) = component.join_by(Instant::now() + SOON) else { panic!("failed") };
        assert!(matches!(error.downcast_ref(), Some(StoreError::Io { .. })));
        for slot in [1, 2] {
            let letter = letters.recv_timeout(SOON).unwrap();
            assert_eq!(letter.address.slot, slot);
            assert!(matches!(letter.answer, Answer::Unavailable(_)));
        }
    }
}
