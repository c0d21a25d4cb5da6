//! The whole service as a program for measurements: as it is, or with storage switched off.
//!
//! `scripts/bench` runs it twice side by side and drives both with `sentinel load`, so that the cost of durability
//! shows as a ratio. Storage off means that the intake thread answers every posting at once and writes nothing;
//! everything before and after it is the same code.
//!
//! This module is no benchmark by itself: it prints where it listens and serves until its input closes.

use std::collections::HashMap;
use std::io::{Read, Write};

use sentinel::config::{Config, Overrides};
use sentinel::domain::event::{Envelope, Receipt, Verdict};
use sentinel::domain::time::Timestamp;
use sentinel::service::{Parts, Service, wall_clock};
use sentinel::store::{self, IntakeSession};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Numbers events and forgets them.
#[derive(Default)]
struct StorageOff {
    numbers: HashMap<sentinel::domain::ids::StreamKey, u64>,
}

impl IntakeSession for StorageOff {
    fn accept(&mut self, now: Timestamp, batch: Vec<Envelope>) -> store::Result<Vec<Verdict>> {
        let receipt = |envelope: Envelope| {
            let number = self.numbers.entry(envelope.stream.clone()).or_default();
            *number += 1;
            Verdict::Accepted(Receipt {
                event_id: envelope.event_id,
                stream: envelope.stream,
                stream_seq: *number,
                received_at: now,
            })
        };
        Ok(batch.into_iter().map(receipt).collect())
    }
}

fn main() -> anyhow::Result<()> {
    // Cargo passes `--bench`; only our own words count.
    let storage_off = std::env::args().any(|word| word == "storage-off");
    let overrides = Overrides { database: None, bind: Some("tcp://127.0.0.1:0".to_owned()) };
    let (config, _) =
        Config::from_environment(overrides).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let service = if storage_off {
        Service::start_with_intake(&config, wall_clock(), Parts::ALL, Box::<StorageOff>::default())?
    } else {
        Service::start(&config, wall_clock(), Parts::ALL)?
    };
    writeln!(std::io::stdout(), "{}", service.api_address())?;
    let mut until_closed = Vec::new();
    std::io::stdin().read_to_end(&mut until_closed)?;
    service.stop()
}
