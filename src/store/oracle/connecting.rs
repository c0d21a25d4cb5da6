//! An attempt at a connection, on a thread of its own. This module keeps whoever needs a session from being held by the
//! client library.
//!
//! A connect is one call that nothing can cut short: with the retries of its descriptor it may take minutes while an
//! address does not answer. So the session waits for the attempt as long as it wants to and no longer, a stop ends the
//! wait, and an attempt that nobody waits for any more ends by itself.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{self, Receiver};
use oracle::{Connection, Error, ErrorKind};

use super::database::{self, Database};
use crate::component::{self, Component, Waited};

/// An attempt that goes on.
pub(super) struct Connecting {
    came: Receiver<oracle::Result<Connection>>,
    _thread: Option<Component>,
}

/// How an attempt stands.
pub(super) enum Attempt {
    Open(Box<Connection>),
    Failed(Error),
    UnderWay(Connecting),
}

impl Connecting {
    pub(super) fn start(database: &Arc<Database>, role: &'static str) -> Self {
        let (outcome, came) = channel::bounded(1);
        // Nobody is told when it ends: that is no event.
        let (ended, _) = channel::unbounded();
        let (database, failed) = (Arc::clone(database), outcome.clone());
        let thread = Component::start("connect", ended, move |_stop| {
            // Whoever asked may be gone, and then so is the connection.
            let _ = outcome.send(database::open(&database, role));
            Ok(())
        });
        if let Err(error) = &thread {
            let words = format!("there is no thread to connect on: {error}");
            let _ = failed.send(Err(Error::new(ErrorKind::Other, words)));
        }
        Self { came, _thread: thread.ok() }
    }

    /// Waits until `deadline`, or until this thread is told to stop.
    pub(super) fn wait(self, deadline: Instant) -> Attempt {
        match component::await_until(&self.came, deadline) {
            Waited::Came(Ok(connection)) => Attempt::Open(Box::new(connection)),
            Waited::Came(Err(error)) => Attempt::Failed(error),
            Waited::Never => Attempt::Failed(Error::new(
                ErrorKind::Other,
                "the attempt broke off: it panicked".to_string(),
            )),
            Waited::Late | Waited::Stopped => Attempt::UnderWay(self),
        }
    }
}
