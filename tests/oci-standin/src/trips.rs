//! Counts the round trips of a connection as Oracle's client would make them. This module writes them to the file
//! `control/<database>/trips/<process>-<connection>`, one line each: what, how often; and the session's module.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Connections of this process so far; a name for each, no more.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Default)]
pub(crate) struct Trips {
    file: Option<File>,
    module: String,
    counts: BTreeMap<&'static str, u64>,
}

impl Trips {
    pub(crate) fn start(&mut self, control: &Path) {
        let folder = control.join("trips");
        let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        // Without the folder nobody reads them.
        self.file = fs::metadata(&folder).and_then(|_| File::create(folder.join(name))).ok();
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
        self.write();
    }

    pub(crate) fn call_it(&mut self, module: &str) {
        self.module = module.to_owned();
        self.write();
    }

    pub(crate) fn module(&self) -> &str {
        &self.module
    }

    fn write(&mut self) {
        let Some(file) = &mut self.file else { return };
        let mut text = format!("module {}\n", self.module);
        for (what, count) in &self.counts {
            text.push_str(&format!("{what} {count}\n"));
        }
        // Counts only grow, so what is written over is never longer than what is written; a module may be shorter.
        text.push_str("end\n");
        let written = file.rewind().and_then(|()| file.write_all(text.as_bytes()));
        debug_assert!(written.is_ok(), "round trips are counted: {written:?}");
    }
}
