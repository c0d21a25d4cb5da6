//! Clauses about several threads at once: an acknowledged event is never missing from a status. This module lets one
//! thread accept and one apply while another reads.

use std::time::{Duration, Instant};

use crossbeam::channel;
use sentinel::component::{Component, End};
use sentinel::domain::event::{Envelope, Verdict};

use super::{SECOND, acme, decide, each, process};
use crate::harness::{PATIENCE, full};

/// Processes that report in turn.
const PROCESSES: usize = 5;

#[test]
fn a_reader_never_misses_an_acknowledged_event_while_others_accept_and_apply() {
    let total = if full() { 50_000 } else { 4000 };
    each(|site| {
        let envelopes: Vec<Envelope> = (0..total)
            .map(|n| {
                let name = format!("p{}", n % PROCESSES);
                site.envelope(&name, "process.progress", &format!(r#"{{"current_step":"{n}"}}"#))
            })
            .collect();
        // Two ways in: the sessions go to their threads.
        let (mut intake, mut listener) = if site.differs().is_shared {
            (site.store.intake().unwrap(), site.store.listener().unwrap())
        } else {
            let empty = super::Site::new(site.backend);
            let intake = std::mem::replace(&mut site.intake, empty.intake);
            (intake, std::mem::replace(&mut site.listener, empty.listener))
        };
        let (ended, _) = channel::unbounded();
        // The next batch is accepted while the reader asks about the one before.
        let (acknowledge, acknowledged) = channel::bounded(0);
        let (all_applied, applied) = channel::bounded(1);
        let clock = site.clock.clone();
        let mut accepting = Component::start("accepting", ended.clone(), move |_stop| {
            let mut rest = envelopes;
            let mut size = 1;
            while !rest.is_empty() {
                let left = rest.split_off(size.min(rest.len()));
                clock.forward(SECOND / 100);
                let verdicts = intake.accept(clock.now(), std::mem::replace(&mut rest, left))?;
                assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Accepted(_))));
                // Sizes from 1 to 23, so that batches and processes never fall into step.
                size = size % 23 + 1;
                let done = total - rest.len();
                acknowledge.send(done)?;
            }
            Ok(())
        })
        .unwrap();
        let clock = site.clock.clone();
        let mut applying = Component::start("applying", ended, move |stop| {
            let mut count = 0;
            while count < total && !stop.is_set() {
                let claim = listener.claim(37, Duration::from_secs(5), &stop)?;
                count += claim.messages.len();
                let now = clock.now();
                let change = decide(&mut *listener, &claim, now);
                listener.settle(claim, change, now)?;
            }
            all_applied.send(())?;
            Ok(())
        })
        .unwrap();
        let differs = site.differs();
        let (mut versions, mut steps) = ([0; PROCESSES], [0; PROCESSES]);
        let mut asked = 0;
        let mut ask = |done: usize| {
            // The newest that is acknowledged of each process; a newer one may be there, too.
            for n in done.saturating_sub(PROCESSES)..done {
                let view = site.reader.status(&acme(), &process(&format!("p{}", n % PROCESSES)));
                // Whoever applies late shows what is applied; at the end that is everything.
                let late = differs.applies_late && done < total;
                let Some(view) = view.unwrap() else {
                    assert!(late, "p{} is acknowledged", n % PROCESSES);
                    continue;
                };
                let step: usize = view.row.current_step.expect("a step").parse().unwrap();
                assert!(step >= n || late, "acknowledged up to {n}, seen up to {step}");
                assert!(step >= steps[n % PROCESSES], "what was seen stays seen");
                steps[n % PROCESSES] = step;
                let version = &mut versions[n % PROCESSES];
                assert!(view.version >= *version, "a version never falls");
                *version = view.version;
            }
            asked += 1;
            // Turns of different lengths.
            if asked % 3 == 0 {
                site.reader.end_turn();
            }
        };
        let mut last = 0;
        while let Ok(done) = acknowledged.recv_timeout(PATIENCE) {
            if done < total || !differs.applies_late {
                ask(done);
            }
            last = done;
        }
        assert_eq!(last, total);
        applied.recv_timeout(PATIENCE).expect("everything is applied");
        for component in [&mut accepting, &mut applying] {
            let end = component.join_by(Instant::now() + PATIENCE);
            assert!(matches!(end, End::Clean), "{}: {end:?}", component.name());
        }
        ask(total);
        assert_eq!(site.backlog(), (0, None));
        for n in 0..PROCESSES {
            site.reader.end_turn();
            let state = site.reader.stream(&acme(), &super::key(&format!("p{n}"))).unwrap();
            assert_eq!(state.unwrap().applied_seq, (total / PROCESSES) as u64);
        }
    });
}
