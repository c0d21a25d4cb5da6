//! Clauses about two instances on one host: what they have in common stops neither. This module opens two on the
//! same store.

use std::thread;
use std::time::Duration;

use super::places::Place;
use super::{HOUR, SECOND, acme, decide, each, key};
use crate::harness::eventually;

#[test]
fn two_instances_that_lost_their_sessions_at_once_both_find_that_writes_go_through() {
    each(|site| {
        // Files have one owner, so nobody shares a name with it.
        let Place::Service(standin) = &site.place else { return };
        let instances = [(); 2].map(|()| (site.backend.open)(&site.place, &site.clock));
        let mut listeners = instances.each_ref().map(|instance| instance.listener().unwrap());
        for listener in &mut listeners {
            assert_eq!(listener.claim(10, Duration::ZERO, &site.stop).unwrap().messages.len(), 0);
        }
        standin.kill_sessions();
        for listener in &mut listeners {
            listener.claim(10, Duration::ZERO, &site.stop).unwrap_err();
        }
        // The first finds no row of its name, and is slow to write it; the second writes it meanwhile.
        let slow = standin.inject("on=OCIStmtExecute text=stream_state nth=2 times=1 do=delay:700");
        let [first, second] = &mut listeners;
        let stop = &site.stop;
        thread::scope(|scope| {
            let first = scope.spawn(move || first.claim(10, SECOND, stop).map(|_| ()));
            eventually("the first writes", || (standin.hits(&slow) == 1).then_some(()));
            second.claim(10, Duration::ZERO, stop).unwrap();
            first.join().unwrap().unwrap();
        });
    });
}

#[test]
fn nobody_is_overdue_whose_sign_of_life_another_instance_is_about_to_apply() {
    each(|site| {
        if !site.differs().is_shared {
            return;
        }
        site.post("p", "process.started", "{}");
        site.apply(10);
        site.clock.forward(HOUR - 10 * SECOND);
        site.post("p", "process.heartbeat", "{}");
        let other = (site.backend.open)(&site.place, &site.clock);
        let mut busy = other.listener().unwrap();
        let held = busy.claim(10, Duration::ZERO, &site.stop).unwrap();
        assert_eq!(held.messages.len(), 1);

        // To everybody else the queue is empty, and the deadline that is stored has passed.
        site.clock.forward(20 * SECOND);
        assert_eq!(site.claim(10).messages.len(), 0);
        let mut keeper = site.store.keeper().unwrap();
        assert_eq!(keeper.overdue(site.now(), 9).unwrap(), []);

        let change = decide(&mut *busy, &held, site.now());
        busy.settle(held, change, site.now()).unwrap();
        assert_eq!(keeper.overdue(site.now(), 9).unwrap(), []);
        site.clock.forward(HOUR);
        assert_eq!(keeper.overdue(site.now(), 9).unwrap().len(), 1, "its silence begins there");
    });
}

#[test]
fn an_event_that_is_applied_while_a_stream_is_read_leaves_no_gap() {
    each(|site| {
        let Place::Service(standin) = &site.place else { return };
        let standin = std::sync::Arc::clone(standin);
        for _ in 0..2 {
            site.post("s", "Ordered", "{}");
        }
        let other = (site.backend.open)(&site.place, &site.clock);
        let mut slower = other.listener().unwrap();
        let first = slower.claim(1, Duration::ZERO, &site.stop).unwrap();
        // The second is there before the first.
        site.apply(10);
        let slow = standin.inject("on=OCIStmtExecute text=queue_state nth=1 times=1 do=delay:700");
        let reader = &mut site.reader;
        let now = other.now();
        thread::scope(|scope| {
            let reading = scope.spawn(move || reader.stream_events(&acme(), &key("s"), 0, 10));
            eventually("the reader asks", || (standin.hits(&slow) == 1).then_some(()));
            let change = decide(&mut *slower, &first, now);
            slower.settle(first, change, now).unwrap();
            let found = reading.join().unwrap().unwrap().unwrap_or_default();
            let numbers: Vec<u64> = found.iter().map(|stored| stored.event.stream_seq).collect();
            assert!(numbers.is_empty() || numbers == [1, 2], "{numbers:?}");
        });
    });
}
