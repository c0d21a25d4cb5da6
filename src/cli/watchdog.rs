//! What systemd hears of the service. This module speaks `sd_notify(3)`, and decides whether the watchdog is answered.
//!
//! Without `NOTIFY_SOCKET` nobody listens and nothing is said; stuck threads are looked for all the same.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Between two looks at the threads, where systemd asks for none.
const LOOK_PAUSE: Duration = Duration::from_secs(10);

/// Watches over the threads for systemd.
pub struct Watchdog {
    /// How often systemd wants to hear of us, if it does.
    asked: bool,
    pause: Duration,
    next: Instant,
    /// The threads that were stuck at the last look: each is named once.
    stuck: Vec<String>,
}

impl Watchdog {
    /// A watchdog as systemd set it for this process.
    pub fn from_surroundings(now: Instant) -> Self {
        let asked = sd_notify::watchdog_enabled();
        // A sign of life is due at least every half of the time that is given.
        let pause = asked.map_or(LOOK_PAUSE, |time| (time / 2).min(LOOK_PAUSE));
        Self { asked: asked.is_some(), pause, next: now + pause, stuck: Vec::new() }
    }

    /// How long until the next look.
    pub fn pause(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// Looks at the threads, once it is time. `stalled` names those that are stuck and for how long; systemd is only told
    /// that the service lives while there are none, and restarts it when it hears nothing.
    pub fn look(&mut self, now: Instant, stalled: impl FnOnce() -> Vec<(String, Duration)>) {
        if now < self.next {
            return;
        }
        self.next = now + self.pause;
        let stalled = stalled();
        if self.judge(&stalled) && self.asked {
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// Whether every thread gets on. Says which do not, and when they do again.
    fn judge(&mut self, stalled: &[(String, Duration)]) -> bool {
        for (name, took) in stalled {
            if !self.stuck.contains(name) {
                log::error!(
                    thread_name = name.as_str();
                    "the thread {name} has been at one step for {} s: systemd hears nothing until it gets on",
                    took.as_secs()
                );
                tell(&[NotifyState::Status(&format!("the thread {name} is stuck"))]);
            }
        }
        if stalled.is_empty() && !self.stuck.is_empty() {
            log::warn!("every thread gets on again: {}", self.stuck.join(", "));
            tell(&[NotifyState::Status("every thread gets on again")]);
        }
        self.stuck = stalled.iter().map(|(name, _)| name.clone()).collect();
        stalled.is_empty()
    }
}

/// The service answers at `address`.
pub fn ready(address: std::net::SocketAddr) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("serving on {address}"))]);
}

/// The service does `work` that changes its settings.
pub fn reloading(work: impl FnOnce()) {
    // Without the time systemd could not tell this reload from one before.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("systemd is not told of the reload: {error}"),
    }
    work();
    tell(&[NotifyState::Ready]);
}

/// The service answers what is in flight and ends.
pub fn stopping() {
    let words = NotifyState::Status("stopping: requests in flight are answered");
    tell(&[NotifyState::Stopping, words]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("systemd cannot be told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_answered_only_while_no_thread_is_stuck() {
        let now = Instant::now();
        let mut watchdog = Watchdog::from_surroundings(now);
        let stuck = [("intake".to_owned(), Duration::from_secs(61))];
        assert!(watchdog.judge(&[]));
        assert!(!watchdog.judge(&stuck));
        assert_eq!(watchdog.stuck, ["intake"]);
        assert!(!watchdog.judge(&stuck));
        assert!(watchdog.judge(&[]));
        assert!(watchdog.stuck.is_empty());
    }

    #[test]
    fn a_look_is_taken_when_it_is_time_and_not_before() {
        let now = Instant::now();
        let mut watchdog = Watchdog::from_surroundings(now);
        let mut looks = 0;
        for s in 0..=20 {
            watchdog.look(now + Duration::from_secs(s), || {
                looks += 1;
                Vec::new()
            });
        }
        assert_eq!(looks, 2);
    }
}
