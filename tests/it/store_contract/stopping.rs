//! Clauses about the end: no session outlasts a stop, whatever it waits for. This module stops threads while they wait
//! for a message, for the next attempt, and for a database that does not answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel;
use sentinel::component::{Component, End, Stop};
use sentinel::store::{KeeperSession, ListenerSession, StoreError};

use super::places::Place;
use super::{Site, each};
use crate::harness::{PATIENCE, eventually};
use crate::oracle_standin::Standin;

/// What a stop may take.
const STOP_MAX: Duration = Duration::from_secs(2);

/// A thread that does one thing again and again until it is told to stop.
fn again(mut act: impl FnMut(&Stop) + Send + 'static) -> Component {
    let (ended, _) = channel::unbounded();
    Component::start("again", ended, move |stop| {
        while !stop.is_set() {
            act(&stop);
        }
        Ok(())
    })
    .unwrap()
}

fn stops_soon(mut component: Component, what: &str) {
    let began = Instant::now();
    component.stop();
    let end = component.join_by(began + PATIENCE);
    assert!(matches!(end, End::Clean), "{what}: {end:?}");
    let took = began.elapsed();
    assert!(took < STOP_MAX, "{what}: a stop took {took:?}");
}

fn claims(mut session: Box<dyn ListenerSession>) -> Component {
    again(move |stop| {
        // What is not to be had is tried again at once: the pauses are the session's own.
        let _ = session.claim(10, Duration::from_secs(3600), stop);
    })
}

fn looks(mut session: Box<dyn KeeperSession>) -> Component {
    again(move |_| {
        let counted = session.count_processes();
        assert!(counted.is_ok() || matches!(counted, Err(StoreError::Disconnected { .. })));
    })
}

fn standin(site: &Site) -> Option<Arc<Standin>> {
    match &site.place {
        Place::Service(standin) => Some(Arc::clone(standin)),
        Place::Folder(_) | Place::Server(_) => None,
    }
}

#[test]
fn a_stop_ends_the_wait_for_a_message() {
    each(|site| {
        let mut session = site.store.listener().unwrap();
        let (says, hears) = channel::unbounded();
        let waiting = again(move |stop| {
            // The second claim begins where there was no message for the first.
            let claim = session.claim(10, Duration::from_millis(500), stop).unwrap();
            let _ = says.send(claim.messages.len());
        });
        assert_eq!(hears.recv_timeout(PATIENCE), Ok(0));
        stops_soon(waiting, "the wait for a message");
    });
}

#[test]
fn a_stop_ends_the_pause_between_two_attempts() {
    each(|site| {
        let Some(standin) = standin(site) else { return };
        let refusal = standin.inject("on=OCIServerAttach do=ora:12541");
        let sessions =
            [claims(site.store.listener().unwrap()), looks(site.store.keeper().unwrap())];
        // The pauses grow to seconds.
        eventually("both have tried often", || (standin.hits(&refusal) >= 12).then_some(()));
        for session in sessions {
            stops_soon(session, "the pause between two attempts");
        }
    });
}

#[test]
fn a_stop_does_not_wait_for_a_database_that_does_not_answer() {
    each(|site| {
        let Some(standin) = standin(site) else { return };
        let silence = standin.inject("on=OCIServerAttach do=hang");
        let sessions =
            [claims(site.store.listener().unwrap()), looks(site.store.keeper().unwrap())];
        eventually("both attempt", || (standin.hits(&silence) >= 2).then_some(()));
        for session in sessions {
            stops_soon(session, "an attempt that hangs");
        }
        standin.mend(&silence);
    });
}

#[test]
fn who_asks_is_told_in_time_that_the_database_does_not_answer_and_one_attempt_goes_on() {
    each(|site| {
        let Some(standin) = standin(site) else { return };
        let mut keeper = site.store.keeper().unwrap();
        let silence = standin.inject("on=OCIServerAttach do=hang");
        for _ in 0..2 {
            let began = Instant::now();
            let told = keeper.count_processes().unwrap_err();
            assert!(matches!(told, StoreError::Disconnected { .. }), "{told:?}");
            assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        }
        assert_eq!(standin.hits(&silence), 1, "one attempt, not one for each question");
        standin.mend(&silence);
        eventually("it answers again", || keeper.count_processes().ok());
    });
}
