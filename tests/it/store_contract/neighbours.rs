//! Clauses about two instances on one host: what they have in common stops neither. This module opens two on the
//! same store.

use std::thread;
use std::time::Duration;

use super::places::Place;
use super::{SECOND, each};
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
