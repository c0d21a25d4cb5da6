//! The key set in use, and when it is fetched anew. This module keeps the last good set while the provider is away,
//! and lets a flood of unknown tokens cause one fetch in ten seconds, never two at once.
//!
//! Nobody who verifies a token ever fetches: they ask, and the thread `keys` fetches.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{self, Receiver, Sender};
use parking_lot::{Condvar, Mutex, RwLock};

use super::cache::Cache;
use super::discovery::KeySource;
use super::keys::{Expectations, KeySet};
use crate::component::{Component, await_work, begin_step};

/// Keys are fetched this often without being asked.
const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// After a failure the next attempt comes sooner.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// At most one fetch in so many seconds is caused by unknown tokens.
pub(super) const ASK_EVERY_S: u64 = 10;

/// A key set and its number. The number changes with the keys.
pub(super) struct Current {
    pub(super) set: KeySet,
    pub(super) generation: u64,
}

/// What became of a wish for newer keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A fetch is under way or about to begin.
    Coming,
    /// The last one is too recent to be repeated.
    TooSoon,
    /// The last one is too recent to be repeated, and it has failed: nobody knows which keys there are now.
    Failed,
}

/// How the keys are, for `/ready` and `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeysState {
    /// Our own key.
    Development,
    /// So many keys, fetched so long ago. `last_error`: the latest attempt failed, and these are still the old ones.
    Loaded { keys: usize, age: Duration, last_error: Option<String> },
    /// There was never a key set, and why.
    NeverLoaded(String),
}

#[derive(Default)]
struct Progress {
    fetching: bool,
    started_s: Option<u64>,
    loaded_s: Option<u64>,
    /// How many fetches have ended, well or not.
    rounds: u64,
    last_error: Option<String>,
}

/// The keys, shared by all loops and workers with the thread that fetches them.
pub(super) struct Keyring {
    current: RwLock<Arc<Current>>,
    progress: Mutex<Progress>,
    ended: Condvar,
    /// None: the set is fixed.
    ask: Option<Sender<()>>,
    pub(super) cache: Cache,
}

impl Keyring {
    /// A key set that never changes.
    pub(super) fn fixed(set: KeySet) -> Self {
        Self::with(set, None)
    }

    fn with(set: KeySet, ask: Option<Sender<()>>) -> Self {
        let progress = Progress { fetching: ask.is_some(), ..Progress::default() };
        Self {
            current: RwLock::new(Arc::new(Current { set, generation: 0 })),
            // The first fetch counts as under way before its thread runs, so that early callers wait for it.
            progress: Mutex::new(progress),
            ended: Condvar::new(),
            ask,
            cache: Cache::new(),
        }
    }

    /// The keys of this moment.
    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read())
    }

    /// The number of the key set of this moment.
    pub(super) fn generation(&self) -> u64 {
        self.current.read().generation
    }

    /// Wishes for newer keys. Never blocks.
    pub(super) fn ask(&self, now_s: u64) -> Asked {
        let Some(ask) = &self.ask else { return Asked::TooSoon };
        let mut progress = self.progress.lock();
        if progress.fetching {
            return Asked::Coming;
        }
        // A clock that was set back must not silence us until it has caught up.
        let recent = |started_s| (started_s..started_s + ASK_EVERY_S).contains(&now_s);
        if progress.started_s.is_some_and(recent) {
            let failed = progress.last_error.is_some();
            return if failed { Asked::Failed } else { Asked::TooSoon };
        }
        progress.fetching = true;
        progress.started_s = Some(now_s);
        drop(progress);
        // A full channel holds the same wish already.
        let _ = ask.try_send(());
        Asked::Coming
    }

    /// How many fetches have ended.
    pub(super) fn rounds(&self) -> u64 {
        self.progress.lock().rounds
    }

    /// Waits until more than `rounds` fetches have ended. Returns false when `deadline` comes first.
    pub(super) fn wait_past(&self, rounds: u64, deadline: Instant) -> bool {
        let mut progress = self.progress.lock();
        while progress.rounds <= rounds {
            if self.ended.wait_until(&mut progress, deadline).timed_out() {
                return progress.rounds > rounds;
            }
        }
        true
    }

    /// How the keys are at `now_s`.
    pub(super) fn state(&self, now_s: u64) -> KeysState {
        let current = self.current();
        if self.ask.is_none() {
            return KeysState::Development;
        }
        let progress = self.progress.lock();
        match progress.loaded_s {
            Some(loaded_s) => KeysState::Loaded {
                keys: current.set.len(),
                age: Duration::from_secs(now_s.saturating_sub(loaded_s)),
                last_error: progress.last_error.clone(),
            },
            None => KeysState::NeverLoaded(
                progress.last_error.clone().unwrap_or_else(|| "not fetched yet".to_string()),
            ),
        }
    }

    fn begin(&self, now_s: u64) {
        let mut progress = self.progress.lock();
        progress.fetching = true;
        progress.started_s = Some(now_s);
    }

    fn end(&self, fetched: Result<KeySet, String>, now_s: u64) {
        let mut error = None;
        match fetched {
            Ok(set) => self.exchange(set),
            Err(what) => error = Some(what),
        }
        let mut progress = self.progress.lock();
        if error.is_none() {
            progress.loaded_s = Some(now_s);
        }
        progress.last_error = error;
        progress.fetching = false;
        progress.rounds += 1;
        self.ended.notify_all();
    }

    /// Puts `set` in use, if it is another one.
    fn exchange(&self, set: KeySet) {
        let mut current = self.current.write();
        if current.set.equals(&set) {
            return;
        }
        let generation = current.generation + 1;
        log::info!("{} keys of the identity provider are in use", set.len());
        *current = Arc::new(Current { set, generation });
        drop(current);
        self.cache.clear();
    }
}

/// Fetches keys. Owned by the thread `keys`.
pub struct Refresher {
    pub(super) keyring: Arc<Keyring>,
    source: Box<dyn KeySource>,
    expected: Expectations,
    asked: Receiver<()>,
}

impl Refresher {
    pub(super) fn new(source: Box<dyn KeySource>, expected: Expectations) -> Self {
        // One wish is as good as many.
        let (ask, asked) = channel::bounded(1);
        let keyring = Arc::new(Keyring::with(KeySet::default(), Some(ask)));
        Self { keyring, source, expected, asked }
    }

    /// Fetches once, and says how long to rest if nobody asks.
    pub(super) fn pass(&self, now_s: u64) -> Duration {
        self.keyring.begin(now_s);
        // What was wished for until now is what is being done.
        while self.asked.try_recv().is_ok() {}
        let fetched =
            self.source.fetch().map_err(|error| format!("{error:#}")).and_then(|document| {
                KeySet::parse(&document, &self.expected).map_err(|error| error.to_string())
            });
        let failed = fetched.is_err();
        if let Err(what) = &fetched {
            log::warn!("the keys of the identity provider stay as they are: {what}");
        }
        self.keyring.end(fetched, now_s);
        if failed { RETRY_AFTER } else { REFRESH_EVERY }
    }

    /// Starts the thread `keys`: it fetches now, every five minutes, and when a token names an unknown key.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self, ended: Sender<String>) -> io::Result<Component> {
        Component::start("keys", ended, move |stop| {
            loop {
                begin_step();
                let rest = self.pass(unix_seconds());
                await_work();
                channel::select! {
                    recv(stop.channel()) -> _ => return Ok(()),
                    recv(self.asked) -> _ => {}
                    default(rest) => {}
                }
            }
        })
    }
}

/// The wall clock, in seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
