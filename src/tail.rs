//! Tells those who follow what other instances have committed. This module is the `tail` thread, which there is where
//! several instances share one store.
//!
//! It looks for everybody with one statement a turn, and not at all while nobody follows. It never says what is new,
//! only that something is: streams read for themselves ([`crate::live`]). What this instance applies itself is
//! announced by its own listeners at once; the tail tells it a second time, which costs a question.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::Sender;

use crate::component::{Component, step_back};
use crate::live::{Hub, News, Subject};
use crate::store::{Fresh, Result, TailSession};
use crate::telemetry::metrics::{Metrics, StoreCall};

/// Between two looks: what another instance commits is told this much later at most, beside the look itself.
pub const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause while looks fail.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What the tail works with besides its session.
pub struct Tail {
    pub hub: Arc<Hub>,
    pub metrics: Arc<Metrics>,
}

/// Starts the tail.
///
/// # Errors
/// When the system gives no thread.
pub fn start(
    mut session: Box<dyn TailSession>,
    tail: Tail,
    ended: Sender<String>,
) -> io::Result<Component> {
    Component::start("tail", ended, move |stop| {
        step_back();
        let mut pause = PAUSE;
        while stop.sleep(pause) {
            pause = match tail.pass(&mut *session) {
                Ok(_) => PAUSE,
                Err(error) if error.is_transient() => {
                    log::warn!("a look at what is new is put off: {error}");
                    (pause * 2).min(PAUSE_MAX)
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(())
    })
}

impl Tail {
    /// Looks once, unless nobody follows. Returns whether it looked.
    ///
    /// # Errors
    /// Whatever the store says. Nothing is left out by it: the next look goes on where the last good one ended.
    pub fn pass(&self, session: &mut dyn TailSession) -> Result<bool> {
        if self.hub.is_empty() {
            session.rest();
            return Ok(false);
        }
        match self.metrics.timed(StoreCall::Tail, || session.look())? {
            Fresh::Anything => self.hub.announce_all(),
            Fresh::Of { streams, logs } => {
                let streams =
                    streams.into_iter().map(|(tenant, stream)| Subject::Events(tenant, stream));
                let logs = logs.into_iter().map(|(tenant, process)| Subject::Logs(tenant, process));
                // Numbers of several writers rise together, not in step: none is passed over.
                self.hub.announce(streams.chain(logs), News { above: 0 });
            }
        }
        Ok(true)
    }
}
