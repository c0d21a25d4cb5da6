//! What users of the embedded store may rely on. This module is the site that its tests work on: a store in a
//! folder of its own, with a clock that is moved by hand.

mod keeping;
mod reading;
mod restoring;
mod writing;

use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;

use super::*;
use crate::component::{Component, Stop};
use crate::domain::event::{Envelope, PayloadHash, Verdict};
use crate::domain::ids::{EventId, EventType, ProcessId, Source, StreamKey, TenantId};
use crate::store::Page;

const BEGIN: &str = "2026-01-28T10:00:00Z";
const HOUR: Duration = Duration::from_secs(3600);

struct Site {
    store: Sqlite,
    intake: Box<dyn IntakeSession>,
    projection: projection::Session,
    reader: Box<dyn Reader>,
    clock: Arc<AtomicI64>,
    ids: u64,
    place: Arc<TempDir>,
}

/// Opens the store in `place`, with tables of ten rows.
fn open(place: Arc<TempDir>, clock: Arc<AtomicI64>) -> Result<Site> {
    let mut settings = Settings::new(place.path().join("data"));
    settings.event_table_rows = 10;
    settings.clock = {
        let clock = Arc::clone(&clock);
        Arc::new(move || Timestamp::from_micros(clock.load(Ordering::Relaxed)))
    };
    let store = Sqlite::open(settings)?;
    let ids = u64::try_from(clock.load(Ordering::Relaxed)).unwrap() * 1000;
    Ok(Site {
        intake: store.intake()?,
        projection: store.projection()?,
        reader: store.reader()?,
        store,
        clock,
        ids,
        place,
    })
}

impl Site {
    fn new() -> Self {
        let begin = Timestamp::parse(BEGIN).unwrap().micros();
        open(Arc::new(tempfile::tempdir().unwrap()), Arc::new(AtomicI64::new(begin))).unwrap()
    }

    /// Stops and starts the store. `between` may do anything to the folder.
    fn restart(self, between: impl FnOnce(&Path)) -> Result<Self> {
        let Self { store, intake, projection, reader, clock, place, .. } = self;
        drop((reader, projection, intake, store));
        between(&place.path().join("data"));
        clock.fetch_add(1, Ordering::Relaxed);
        open(place, clock)
    }

    fn now(&self) -> Timestamp {
        self.store.now()
    }

    fn wait(&self, pause: Duration) {
        let micros = i64::try_from(pause.as_micros()).unwrap();
        self.clock.fetch_add(micros, Ordering::Relaxed);
    }

    fn event(&mut self, stream: &str, event_type: &str, payload: &str) -> Envelope {
        self.ids += 1;
        Envelope {
            payload: payload.into(),
            hash: PayloadHash([u8::try_from(self.ids % 251).unwrap(); 32]),
            ..Envelope::sample(&format!("e{}", self.ids), stream, event_type)
        }
    }

    /// Accepts one event, which is not applied yet, a second after the one before.
    fn post(&mut self, stream: &str, event_type: &str, payload: &str) -> EventId {
        let envelope = self.event(stream, event_type, payload);
        let id = envelope.event_id.clone();
        self.accept(envelope);
        id
    }

    fn accept(&mut self, envelope: Envelope) {
        self.wait(Duration::from_secs(1));
        let now = self.now();
        let verdicts = self.intake.accept(now, vec![envelope]).unwrap();
        assert!(matches!(verdicts[..], [Verdict::Accepted(_)]), "{verdicts:?}");
    }

    /// Applies everything that waits, `batch` messages at a time.
    fn apply(&mut self, batch: usize) {
        let (policy, now) = (self.store.settings.policy, self.now());
        while self.projection.replay(batch, &policy, now).unwrap() > 0 {}
        self.reader.end_turn();
    }

    fn status(&mut self, process: &str) -> Option<String> {
        let process = ProcessId::parse(process).unwrap();
        let view = self.reader.status(&acme(), &process).unwrap();
        view.map(|view| view.row.status.as_str().to_string())
    }

    /// The rows of a question, as text.
    fn ask(&self, sql: &str) -> Vec<String> {
        let connection = open_reader(&self.store.folder.events_db()).unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values: Vec<String> = (0..columns)
                .map(|column| match row.get_ref(column).unwrap() {
                    rusqlite::types::ValueRef::Text(text) => {
                        String::from_utf8_lossy(text).into_owned()
                    }
                    rusqlite::types::ValueRef::Blob(bytes) => format!("{bytes:?}"),
                    other => format!("{other:?}"),
                })
                .collect();
            Ok(values.join(" "))
        });
        rows.unwrap().map(|row| row.unwrap()).collect()
    }

    /// Everything that people can see of the projection, and the states behind it.
    fn everything(&self) -> Vec<String> {
        [
            "SELECT * FROM events ORDER BY id",
            "SELECT * FROM process_registry ORDER BY process_id",
            "SELECT * FROM process_live_status ORDER BY process_id",
            "SELECT * FROM process_runs ORDER BY process_id, run_id",
            "SELECT * FROM stream_state ORDER BY stream_key",
            "SELECT * FROM dead_letter ORDER BY id",
            "SELECT stream_id, state, version, sweep_us IS NULL FROM process ORDER BY stream_id",
            "SELECT * FROM history ORDER BY history_key",
            "SELECT position FROM projection",
        ]
        .into_iter()
        .flat_map(|sql| self.ask(sql))
        .collect()
    }
}

/// A stop signal, and the thread that holds it.
fn stop() -> (Component, Stop) {
    let (ended, _names) = crossbeam::channel::unbounded();
    let (sender, receiver) = crossbeam::channel::bounded(1);
    let holder = Component::start("holder", ended, move |stop: Stop| {
        sender.send(stop.clone())?;
        let _closed = stop.channel().recv();
        Ok(())
    });
    (holder.unwrap(), receiver.recv().unwrap())
}

fn acme() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn first(limit: usize) -> Page {
    Page { limit, after: None }
}
