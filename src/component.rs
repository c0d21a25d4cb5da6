//! A thread with a name, an end and somebody who hears of it. This module is the only place that spawns one.
//!
//! Only `service.rs` starts components. The stop signal is a channel that closes, so it also ends a sleep.
//!
//! A thread says when it begins a step of work and when it waits for the next, so that one that is stuck is told from
//! one that has nothing to do, and nobody has to wake up to prove that it lives.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use crossbeam::select;

/// Linux shows at most this many bytes of a thread's name.
pub const NAME_BYTES_MAX: usize = 15;

/// How long a step may take, unless the thread says otherwise: much longer than the slowest answer of a disk that still
/// works, so whatever takes longer will not end by itself.
pub const STEP_MAX: Duration = Duration::from_secs(60);

/// What a thread is at.
struct Pulse {
    /// When its step began, in milliseconds since [`BEGIN`]; [`WAITING`] between two steps.
    step_began_ms: AtomicU64,
    step_max_ms: AtomicU64,
}

const WAITING: u64 = u64::MAX;

/// Steps are timed from here.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

thread_local! {
    /// The pulse of the component that this thread is.
    static PULSE: RefCell<Option<Arc<Pulse>>> = const { RefCell::new(None) };
    /// What tells it that it is time to stop.
    static STOP: RefCell<Option<Stop>> = const { RefCell::new(None) };
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(WAITING - 1)
}

fn with_pulse(act: impl FnOnce(&Pulse)) {
    // A thread that is no component, in a test for example, has none.
    PULSE.with_borrow(|pulse| pulse.as_deref().map(act));
}

/// Says that this thread begins a step of work.
pub fn begin_step() {
    let now = millis(BEGIN.elapsed());
    with_pulse(|pulse| pulse.step_began_ms.store(now, Ordering::Relaxed));
}

/// Says that this thread has nothing to do until somebody gives it work.
pub fn await_work() {
    with_pulse(|pulse| pulse.step_began_ms.store(WAITING, Ordering::Relaxed));
}

/// Says that a step of this thread may take so long.
pub fn allow_long_steps(step_max: Duration) {
    with_pulse(|pulse| pulse.step_max_ms.store(millis(step_max), Ordering::Relaxed));
}

/// Whether the component that this thread is was told to stop. For what is deep below a body and has no [`Stop`].
pub fn is_stopping() -> bool {
    STOP.with_borrow(|stop| {
        stop.as_ref().is_some_and(|stop| stop.0.try_recv() == Err(TryRecvError::Disconnected))
    })
}

/// How a wait ended.
#[derive(Debug)]
pub enum Waited<T> {
    Came(T),
    /// Nothing came, and nothing can come any more.
    Never,
    /// The deadline came first.
    Late,
    /// This thread's component was told to stop meanwhile.
    Stopped,
}

/// Waits for what comes over `receiver`, until `deadline` or until this thread's component is told to stop. Where that
/// has been told before, until the deadline.
pub fn await_until<T>(receiver: &Receiver<T>, deadline: Instant) -> Waited<T> {
    let stop = if is_stopping() { channel::never() } else { stop_of_this_thread() };
    let came = |came: Result<T, _>| came.map_or(Waited::Never, Waited::Came);
    select! {
        recv(receiver) -> message => came(message),
        recv(stop) -> _stop => Waited::Stopped,
        recv(channel::at(deadline)) -> _late => Waited::Late,
    }
}

/// Lets time pass until `deadline`. Returns false, at once, when this thread's component is told to stop, or was before.
pub fn pause_until(deadline: Instant) -> bool {
    match stop_of_this_thread().recv_deadline(deadline) {
        Err(RecvTimeoutError::Timeout) => true,
        Err(RecvTimeoutError::Disconnected) => false,
        Ok(never) => match never {},
    }
}

fn stop_of_this_thread() -> Receiver<Infallible> {
    STOP.with_borrow(|stop| stop.as_ref().map_or_else(channel::never, |stop| stop.0.clone()))
}

/// Tells a component's body that it is time to stop. Cloned where one thread waits in two places.
#[derive(Clone)]
pub struct Stop(Receiver<Infallible>);

impl Stop {
    /// Sleeps for `pause`. Returns false, at once, when it is time to stop.
    pub fn sleep(&self, pause: Duration) -> bool {
        await_work();
        let told = self.0.recv_timeout(pause);
        begin_step();
        match told {
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
            Ok(never) => match never {},
        }
    }

    /// Whether it is time to stop. Who asks is between two steps.
    pub fn is_set(&self) -> bool {
        begin_step();
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
    pulse: Arc<Pulse>,
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
        let pulse = Arc::new(Pulse {
            step_began_ms: AtomicU64::new(WAITING),
            step_max_ms: AtomicU64::new(millis(STEP_MAX)),
        });
        let thread = thread::Builder::new().name(name.clone()).spawn({
            let (name, pulse) = (name.clone(), Arc::clone(&pulse));
            LazyLock::force(&BEGIN);
            move || {
                PULSE.set(Some(pulse));
                STOP.set(Some(Stop(stopped.clone())));
                let _alive: Sender<Infallible> = alive;
                let _farewell = Farewell { name, ended };
                body(Stop(stopped))
            }
        })?;
        Ok(Self { name, stop: Some(stop), over, thread: Some(thread), pulse })
    }

    /// The thread's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For how long the thread has been at a step that takes longer than it may, at `now`. None: it gets on.
    pub fn stalled(&self, now: Instant) -> Option<Duration> {
        let began_ms = self.pulse.step_began_ms.load(Ordering::Relaxed);
        let at = Duration::from_millis(began_ms);
        let took = now.saturating_duration_since(*BEGIN).checked_sub(at)?;
        let max = Duration::from_millis(self.pulse.step_max_ms.load(Ordering::Relaxed));
        (began_ms != WAITING && took > max).then_some(took)
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
    fn a_wait_deep_below_a_body_ends_with_its_stop_and_goes_on_to_the_deadline_after_it() {
        let (_sender, nothing) = channel::bounded::<()>(0);
        let now = Instant::now();
        assert!(!is_stopping(), "this thread is no component");
        assert!(matches!(await_until(&nothing, now), Waited::Late));
        assert!(pause_until(now));
        let (ended, _names) = channel::unbounded();
        let (says, hears) = channel::unbounded();
        let mut component = Component::start("waiter", ended, move |_| {
            says.send(())?;
            let waited = await_until(&nothing, now + Duration::from_secs(3600));
            assert!(matches!(waited, Waited::Stopped) && is_stopping());
            assert!(matches!(await_until(&nothing, Instant::now()), Waited::Late));
            assert!(!pause_until(now + Duration::from_secs(3600)), "it is time to stop already");
            let (sender, something) = channel::bounded(1);
            sender.send(7)?;
            assert!(matches!(await_until(&something, now + SOON), Waited::Came(7)));
            drop(sender);
            assert!(matches!(await_until(&something, now + SOON), Waited::Never));
            Ok(())
        })
        .unwrap();
        hears.recv_timeout(SOON).unwrap();
        assert!(matches!(component.join_by(Instant::now() + SOON), End::Clean));
    }

    #[test]
    fn a_panic_is_announced_and_reported() {
        let (ended, names) = channel::unbounded();
        let mut component = Component::start("clumsy", ended, |_| panic!("on purpose")).unwrap();
        assert_eq!(names.recv_timeout(SOON).unwrap(), "clumsy");
        assert!(matches!(component.join_by(Instant::now() + SOON), End::Failed(_)));
    }

    #[test]
    fn a_step_that_takes_too_long_is_told_from_waiting_for_work() {
        let (ended, _names) = channel::unbounded();
        let (work, works) = channel::unbounded::<Receiver<()>>();
        let (done, dones) = channel::unbounded();
        let mut component = Component::start("busy", ended, move |_| {
            while let Ok(step) = works.recv() {
                begin_step();
                done.send(())?;
                let _ = step.recv();
                await_work();
                done.send(())?;
            }
            Ok(())
        })
        .unwrap();
        let later = || Instant::now() + STEP_MAX + Duration::from_secs(1);
        assert_eq!(component.stalled(later()), None, "it has never begun");
        let (release, step) = channel::bounded(0);
        work.send(step).unwrap();
        dones.recv_timeout(SOON).unwrap();
        assert_eq!(component.stalled(Instant::now()), None);
        assert!(component.stalled(later()).is_some_and(|took| took > STEP_MAX));
        drop(release);
        dones.recv_timeout(SOON).unwrap();
        assert_eq!(component.stalled(later()), None, "it waits again");
        drop(work);
        assert!(matches!(component.join_by(Instant::now() + SOON), End::Clean));
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
