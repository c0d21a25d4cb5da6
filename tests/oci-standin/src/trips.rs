//! Counts the round trips of a connection as Oracle's client would make them. This module writes them to the file
//! `control/<database>/trips/<process>-<connection>`, one line each: what, how often; and the session's module and action.

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
    action: String,
    /// Both, with a slash between them.
    name: String,
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

    pub(crate) fn module_is(&mut self, module: &str) {
        self.module = module.to_owned();
        self.rename();
    }

    pub(crate) fn action_is(&mut self, action: &str) {
        self.action = action.to_owned();
        self.rename();
    }

    fn rename(&mut self) {
        self.name = format!("{}/{}", self.module, self.action);
        self.write();
    }

    /// Module and action: what a test tells sessions apart by.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self) {
        let Some(file) = &mut self.file else { return };
        let mut text = format!("session {}\n", self.name);
        for (what, count) in &self.counts {
            text.push_str(&format!("{what} {count}\n"));
        }
        // Counts only grow, so what is written over is never longer than what is written; a name may be shorter.
        text.push_str("end\n");
        let written = file.rewind().and_then(|()| file.write_all(text.as_bytes()));
        debug_assert!(written.is_ok(), "round trips are counted: {written:?}");
    }
}
