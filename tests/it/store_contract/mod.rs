//! The specification of the storage seam: one clause is one test. This module opens each backend that there is for
//! each clause, and holds what the clauses work with.
//!
//! Clauses speak of the traits of `sentinel::store` alone, with a clock that is moved by hand, so a backend that is
//! added to [`BACKENDS`] is held to all of them. Where one differs by necessity, [`places::Differs`] says in what and
//! why, and the clause says what holds instead.

mod acceptance;
mod application;
mod deserted;
mod following;
mod identity;
mod keeping;
mod large_rows;
mod listings;
mod log_rows;
mod neighbours;
mod stopping;
mod together;
mod unclear;
mod visibility;

mod places;

use std::time::Duration;

use sentinel::component::{Component, Stop};
use sentinel::domain::apply::Change;
use sentinel::domain::event::{Envelope, IdOrigin, Receipt, Verdict};
use sentinel::domain::ids::{EventId, IdempotencyKey, ProcessId, StreamKey, TenantId};
use sentinel::domain::time::Timestamp;
use sentinel::store::{
    Claim, Cursor, IntakeSession, ListenerSession, Message, Page, Paged, ProcessView, Reader, Store,
};

use self::places::{BACKENDS, Backend, Differs, Place};
use crate::by_hand::{self, POLICY, decide};
use crate::harness::{HandClock, stop};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const SECOND: Duration = Duration::from_secs(1);

/// How long keys and ids are remembered in these tests.
const WINDOW: Duration = Duration::from_secs(168 * 3600);

/// Holds `clause` against each backend that there is here.
fn each(clause: impl Fn(&mut Site)) {
    for backend in &BACKENDS {
        if let Some(place) = (backend.place)() {
            clause(&mut Site::at(backend, place));
        }
    }
}

/// A store with one session of each kind, and a clock that is moved by hand.
struct Site {
    backend: &'static Backend,
    clock: HandClock,
    // Sessions go before the store that gave them.
    intake: Box<dyn IntakeSession>,
    listener: Box<dyn ListenerSession>,
    reader: Box<dyn Reader>,
    store: Box<dyn Store>,
    place: Place,
    stop: Stop,
    _idle: Component,
    ids: u64,
}

impl Site {
    fn new(backend: &'static Backend) -> Self {
        Self::at(backend, (backend.place)().expect("there was one before"))
    }

    fn at(backend: &'static Backend, place: Place) -> Self {
        let clock = HandClock::at("2026-01-28T10:00:00Z");
        let store = (backend.open)(&place, &clock);
        let (stop, _idle) = stop();
        Self {
            backend,
            intake: store.intake().expect("an intake session"),
            listener: store.listener().expect("a listener session"),
            reader: store.reader().expect("a read session"),
            store,
            clock,
            place,
            stop,
            _idle,
            ids: 0,
        }
    }

    /// Closes everything and opens it again.
    fn reopen(&mut self) {
        if self.differs().is_shared {
            // Nobody holds it alone, so the new one is there before the old one goes.
            let store = (self.backend.open)(&self.place, &self.clock);
            self.intake = store.intake().expect("an intake session");
            self.listener = store.listener().expect("a listener session");
            self.reader = store.reader().expect("a read session");
            self.store = store;
            return;
        }
        // Sessions of an empty store take the places, so that nothing of the old one is left open.
        let empty = Self::new(self.backend);
        self.intake = empty.intake;
        self.listener = empty.listener;
        self.reader = empty.reader;
        self.store = empty.store;
        self.store = (self.backend.open)(&self.place, &self.clock);
        self.intake = self.store.intake().expect("an intake session");
        self.listener = self.store.listener().expect("a listener session");
        self.reader = self.store.reader().expect("a read session");
    }

    fn now(&self) -> Timestamp {
        self.store.now()
    }

    fn differs(&self) -> &'static Differs {
        self.backend.differs
    }

    /// What is accepted and not applied, as of now.
    fn backlog(&self) -> (u64, Option<Timestamp>) {
        if self.differs().looks_now_and_then {
            let mut keeper = self.store.keeper().expect("a keeper session");
            keeper.upkeep(self.now()).expect("upkeep looks");
        }
        self.store.backlog()
    }

    /// The same, with how old the oldest is where that goes by the clock of the test.
    fn waits(&self, count: u64, oldest: Timestamp) -> bool {
        let (waiting, told) = self.backlog();
        let its_own = self.differs().has_its_own_time && told.is_some();
        waiting == count && (its_own || told == Some(oldest))
    }

    /// Lets the time pass after which what was claimed and lost can be claimed again.
    fn give_back(&self) {
        let pause = self.differs().gives_back_after;
        self.clock.forward(pause);
        if self.differs().has_its_own_time {
            // The queue waits by its own clock, and moves messages a while later.
            std::thread::sleep(pause + 2 * SECOND);
        }
        // The clock of a store moves when it is read.
        self.now();
    }

    /// Applies what is accepted, where a status does not show it otherwise.
    fn catch_up(&mut self) {
        if self.differs().applies_late {
            self.apply(100);
        }
    }

    /// An event of `stream` with an id that we gave it, and a hash of its own.
    fn envelope(&mut self, stream: &str, event_type: &str, payload: &str) -> Envelope {
        self.ids += 1;
        // Events of one instant sort by their ids, so these sort as they were made.
        let id = EventId::parse(&format!("e{:06}", self.ids)).expect("an id");
        let envelope = by_hand::envelope(&acme(), id, stream, event_type, payload, self.ids.into());
        Envelope { id_origin: IdOrigin::Door, ..envelope }
    }

    fn accept(&mut self, batch: Vec<Envelope>) -> Vec<Verdict> {
        let now = self.now();
        self.intake.accept(now, batch).expect("the store takes events")
    }

    /// Accepts one event, a second after the one before.
    fn accept_one(&mut self, envelope: Envelope) -> Receipt {
        self.clock.forward(SECOND);
        match self.accept(vec![envelope]).pop() {
            Some(Verdict::Accepted(receipt)) => receipt,
            other => panic!("{other:?}"),
        }
    }

    /// Makes and accepts one event.
    fn post(&mut self, stream: &str, event_type: &str, payload: &str) -> Receipt {
        let envelope = self.envelope(stream, event_type, payload);
        self.accept_one(envelope)
    }

    fn claim(&mut self, max: usize) -> Claim {
        self.listener.claim(max, Duration::ZERO, &self.stop).expect("a claim")
    }

    /// What a claim changes, by the rules of the domain.
    fn decide(&mut self, claim: &Claim) -> Change {
        decide(&mut *self.listener, claim, self.store.now())
    }

    /// Claims and settles once. Returns how many messages there were.
    fn apply_once(&mut self, max: usize) -> usize {
        let claim = self.claim(max);
        let count = claim.messages.len();
        let (change, now) = (self.decide(&claim), self.now());
        self.listener.settle(claim, change, now).expect("a claim is settled");
        self.reader.end_turn();
        count
    }

    /// Applies everything that waits, `batch` messages at a time.
    fn apply(&mut self, batch: usize) {
        while self.apply_once(batch) > 0 {}
    }

    fn status(&mut self, name: &str) -> Option<ProcessView> {
        self.reader.status(&acme(), &process(name)).expect("a status")
    }

    /// The numbers that a stream shows after `after`.
    fn numbers(&mut self, stream: &str, after: u64) -> Option<Vec<u64>> {
        let events = self.reader.stream_events(&acme(), &key(stream), after, 1000);
        let events = events.expect("a stream can be read");
        events.map(|events| events.iter().map(|event| event.event.stream_seq).collect())
    }
}

/// The positions of a claim.
fn positions(claim: &Claim) -> Vec<i64> {
    claim.messages.iter().map(Message::position).collect()
}

/// A whole listing, page by page; `between` happens after each page.
fn pages<T>(
    site: &mut Site,
    limit: usize,
    mut ask: impl FnMut(&mut dyn Reader, &Page) -> Paged<T>,
    mut between: impl FnMut(&mut Site),
) -> Vec<T> {
    let (mut page, mut rows) = (first(limit), Vec::new());
    loop {
        let Paged { rows: found, next } = ask(&mut *site.reader, &page);
        assert!(found.len() <= limit, "a page holds what was asked for at most");
        rows.extend(found);
        let Some(next) = next else { return rows };
        page.after = Some(next);
        between(site);
        site.reader.end_turn();
    }
}

fn acme() -> TenantId {
    tenant("acme")
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).expect("a tenant")
}

fn process(name: &str) -> ProcessId {
    ProcessId::parse(name).expect("a process id")
}

fn key(name: &str) -> StreamKey {
    StreamKey::parse(name).expect("a stream key")
}

fn idempotency(name: &str) -> IdempotencyKey {
    IdempotencyKey::parse(name).expect("a key")
}

fn first(limit: usize) -> Page {
    Page { limit, after: None::<Cursor> }
}
