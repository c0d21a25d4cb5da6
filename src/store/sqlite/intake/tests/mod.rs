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

mod durability;
mod model;
mod repeats;

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
                    Message::Undecodable { problem, .. } => panic!("{problem}"),
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
