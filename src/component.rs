//! A thread with a name, an end and somebody who hears of it. This module is the only place that spawns one.
//!
//! Only `service.rs` starts components. The stop signal is a channel that closes, so it also ends a sleep.

use std::convert::Infallible;
use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};

/// Linux shows at most this many bytes of a thread's name.
pub const NAME_BYTES_MAX: usize = 15;

/// Tells a component's body that it is time to stop. Cloned where one thread waits in two places.
#[derive(Clone)]
pub struct Stop(Receiver<Infallible>);

impl Stop {
    /// Sleeps for `pause`. Returns false, at once, when it is time to stop.
    pub fn sleep(&self, pause: Duration) -> bool {
        match self.0.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
            Ok(never) => match never {},
        }
    }

    /// Whether it is time to stop.
    pub fn is_set(&self) -> bool {
        matches!(self.0.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Closes when it is time to stop: for `select!`.
    pub fn channel(&self) -> &Receiver<Infallible> {
        &self.0
    }
}

/// How much nicer a thread is that steps back: it has a third of the weight of one that doesn't.
#[cfg(target_os = "linux")]
const STEP_BACK: i32 = 5;

/// Lets the threads that somebody waits for go first when processors are short. Called by a thread about itself, where
/// its work can wait a little and comes in long pieces. It never rests: it gets what the others leave, and its share
/// when they leave nothing.
#[cfg(target_os = "linux")]
pub fn step_back() {
    use rustix::process::{getpriority_process, setpriority_process};

    // To Linux "this process" is the thread that asks. The scheduler ends at 19 by itself.
    let outcome =
        getpriority_process(None).and_then(|nice| setpriority_process(None, nice + STEP_BACK));
    if let Err(error) = outcome {
        log::debug!("a thread could not step back: {error}");
    }
}

/// Elsewhere it would be the whole process that steps back.
#[cfg(not(target_os = "linux"))]
pub fn step_back() {}

/// Sends on drop, so that a panic is announced like any other end.
struct Farewell {
    name: String,
    ended: Sender<String>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.ended.send(std::mem::take(&mut self.name));
    }
}

/// A running thread. Stopping is two steps, so that several can be told before the first is awaited.
pub struct Component {
    name: String,
    stop: Option<Sender<Infallible>>,
    /// Closes when the body is over, whatever way.
    over: Receiver<Infallible>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// How a component came to its end.
#[derive(Debug)]
pub enum End {
    /// It stopped when it was told to.
    Clean,
    /// It returned an error or panicked.
    Failed(anyhow::Error),
    /// It had not stopped by the deadline.
    Straggler,
}

impl Component {
    /// Starts `body` on a thread called `name`, which sends its name to `ended` when it is over.
    ///
    /// # Errors
    /// When the system gives no thread.
    ///
    /// # Panics
    /// When `name` is longer than [`NAME_BYTES_MAX`]: a bug.
    pub fn start(
        name: impl Into<String>,
        ended: Sender<String>,
        body: impl FnOnce(Stop) -> anyhow::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let name = name.into();
        assert!(
            name.len() <= NAME_BYTES_MAX,
            "thread name {name:?} is longer than {NAME_BYTES_MAX} bytes"
        );
        let (stop, stopped) = channel::bounded(0);
        let (alive, over) = channel::bounded(0);
        let thread = thread::Builder::new().name(name.clone()).spawn({
            let name = name.clone();
            move || {
                let _alive: Sender<Infallible> = alive;
                let _farewell = Farewell { name, ended };
                body(Stop(stopped))
            }
        })?;
        Ok(Self { name, stop: Some(stop), over, thread: Some(thread) })
    }

    /// The thread's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells the thread that it is time to stop, and returns at once.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until the thread is over or `deadline` has come, whichever is first.
    pub fn join_by(&mut self, deadline: Instant) -> End {
        self.stop();
        match self.over.recv_deadline(deadline) {
            Err(RecvTimeoutError::Timeout) => return End::Straggler,
            Err(RecvTimeoutError::Disconnected) => {}
            Ok(never) => match never {},
        }
        let Some(thread) = self.thread.take() else { return End::Clean };
        match thread.join() {
            Ok(Ok(())) => End::Clean,
            Ok(Err(error)) => End::Failed(error),
            Err(_panic) => End::Failed(anyhow::anyhow!("thread {} panicked", self.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn stop_ends_a_sleep_at_once_and_the_end_is_announced() {
        let (ended, names) = channel::unbounded();
        let mut component = Component::start("sleeper", ended, |stop| {
            assert!(!stop.sleep(Duration::from_secs(3600)));
            Ok(())
        })
        .unwrap();
        assert!(matches!(component.join_by(Instant::now() + SOON), End::Clean));
        assert_eq!(names.recv_timeout(SOON).unwrap(), "sleeper");
        assert!(matches!(component.join_by(Instant::now()), End::Clean), "a second stop is fine");
    }

    #[test]
    fn a_panic_is_announced_and_reported() {
        let (ended, names) = channel::unbounded();
        let mut component = Component::start("clumsy", ended, |_| panic!("on purpose")).unwrap();
        assert_eq!(names.recv_timeout(SOON).unwrap(), "clumsy");
        assert!(matches!(component.join_by(Instant::now() + SOON), End::Failed(_)));
    }

    #[test]
    fn a_straggler_is_named_by_the_deadline() {
        let (ended, _names) = channel::unbounded();
        let (release, released) = channel::bounded::<()>(0);
        let mut component = Component::start("busy", ended, move |_| {
            let _ = released.recv();
            Ok(())
        })
        .unwrap();
        assert!(matches!(component.join_by(Instant::now()), End::Straggler));
        drop(release);
        assert!(matches!(component.join_by(Instant::now() + SOON), End::Clean));
    }
}
