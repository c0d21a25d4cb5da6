//! Clauses about housekeeping: who is overdue, what retention takes and what it never touches. This module moves the
//! clock by days.

use sentinel::domain::ids::{EventType, TenantId};
use sentinel::domain::log_row::LogRow;
use sentinel::domain::process::Status;
use sentinel::domain::time::Timestamp;
use sentinel::store::{EventFilter, KeeperSession, LogFilter, Overdue};

use super::{DAY, HOUR, POLICY, SECOND, Site, acme, each, first, key, log_rows, process};

fn overdue(keeper: &mut dyn KeeperSession, until: Timestamp, limit: usize) -> Vec<Overdue> {
    keeper.overdue(until, limit).unwrap()
}

fn names(found: &[Overdue]) -> Vec<&str> {
    found.iter().map(|overdue| overdue.process.as_str()).collect()
}

#[test]
fn the_longest_overdue_come_first_and_a_limit_keeps_them() {
    each(|site| {
        site.post("a", "process.started", "{}");
        site.clock.forward(HOUR / 6);
        for name in ["b", "c", "ended", "paused"] {
            site.post(name, "process.started", "{}");
        }
        site.clock.forward(HOUR / 2);
        // It was the first to start, and is the last to be overdue.
        site.post("a", "process.heartbeat", "{}");
        site.post("ended", "process.completed", "{}");
        site.post("paused", "process.paused", "{}");
        site.apply(3);
        let mut keeper = site.store.keeper().unwrap();
        assert!(overdue(&mut *keeper, site.now(), 9).is_empty());
        let of_b = site.status("b").unwrap().row.deadline_at.unwrap();
        assert!(overdue(&mut *keeper, of_b.minus(SECOND), 9).is_empty(), "not a second early");
        assert_eq!(names(&overdue(&mut *keeper, of_b, 9)), ["b"], "at its deadline, not after");
        site.clock.forward(2 * HOUR);
        assert_eq!(names(&overdue(&mut *keeper, site.now(), 9)), ["b", "c", "a"]);
        for limit in 1..3 {
            let found = overdue(&mut *keeper, site.now(), limit);
            assert_eq!(names(&found), ["b", "c", "a"][..limit], "{limit} at most");
        }
        // The same question of a session that has not yet looked.
        let mut fresh = site.store.keeper().unwrap();
        assert_eq!(names(&overdue(&mut *fresh, site.now(), 1)), ["b"]);
    });
}

#[test]
fn a_first_look_with_a_limit_finds_the_longest_overdue_too() {
    each(|site| {
        site.post("a", "process.started", "{}");
        site.post("b", "process.started", "{}");
        site.apply(10);
        // In a batch of its own, so that a store that moves deadlines lazily has moved this one.
        site.clock.forward(HOUR / 2);
        site.post("a", "process.heartbeat", "{}");
        site.apply(10);
        site.clock.forward(3 * HOUR);
        let mut keeper = site.store.keeper().unwrap();
        assert_eq!(names(&overdue(&mut *keeper, site.now(), 1)), ["b"]);
    });
}

#[test]
fn an_overdue_process_comes_with_its_tenant_its_state_and_its_newest_line() {
    each(|site| {
        site.post("a", "process.started", r#"{"process_name":"import"}"#);
        let mut theirs = site.envelope("a", "process.started", "{}");
        theirs.tenant = super::tenant("other");
        site.accept_one(theirs);
        site.apply(10);
        let line = log_rows::row(site, "a", "still here");
        let said = site.now();
        site.store.logs().unwrap().write(&[line]).unwrap();
        site.clock.forward(2 * HOUR);
        let mut keeper = site.store.keeper().unwrap();
        let found = overdue(&mut *keeper, site.now(), 9);
        let tenants: Vec<_> = found.iter().map(|overdue| overdue.tenant.as_str()).collect();
        assert_eq!(tenants, ["acme", "other"], "a sweep is for all tenants");
        assert_eq!(found[0].last_log_at, Some(said));
        assert_eq!(found[1].last_log_at, None, "what another tenant's process said is not its own");
        let row = found[0].state.row(&acme(), &process("a"), &POLICY);
        assert_eq!((row.status, row.process_name.as_deref()), (Status::Running, Some("import")));
    });
}

#[test]
fn a_deadline_that_is_put_off_is_honoured_and_never_moved_forward() {
    each(|site| {
        for name in ["a", "b"] {
            site.post(name, "process.started", "{}");
        }
        site.apply(10);
        site.clock.forward(2 * HOUR);
        let mut keeper = site.store.keeper().unwrap();
        let (later, earlier) = (site.now().plus(HOUR), site.now().minus(DAY));
        keeper.put_off(&acme(), &process("a"), later).unwrap();
        keeper.put_off(&acme(), &process("b"), earlier).unwrap();
        keeper.put_off(&super::tenant("other"), &process("b"), later).unwrap();
        keeper.put_off(&acme(), &process("nobody"), later).unwrap();
        assert_eq!(names(&overdue(&mut *keeper, site.now(), 9)), ["b"]);
        site.reader.end_turn();
        assert_eq!(site.status("a").unwrap().row.deadline_at, Some(later));
        assert_eq!(names(&overdue(&mut *keeper, later, 9)), ["b", "a"]);
        drop(keeper);
        site.reopen();
        let mut keeper = site.store.keeper().unwrap();
        assert_eq!(names(&overdue(&mut *keeper, site.now(), 9)), ["b"]);
    });
}

/// Archives until there is nothing left to do.
fn archive(site: &mut Site, before: Timestamp) {
    let mut keeper = site.store.keeper().unwrap();
    let portions = (0..10_000).take_while(|_| keeper.archive(before, 3).unwrap() > 0).count();
    assert!(portions < 10_000, "archiving comes to no end");
    site.reader.end_turn();
}

#[test]
fn what_is_over_and_old_is_archived_and_keeps_its_row_and_its_last_number() {
    each(|site| {
        for name in ["done", "failed"] {
            site.post(name, "process.started", r#"{"process_name":"import"}"#);
            let end = if name == "done" { "process.completed" } else { "process.failed" };
            site.post(name, end, r#"{"error_code":"E"}"#);
        }
        site.post("order", "Ordered", "{}");
        let line = log_rows::row(site, "done", "hello");
        site.store.logs().unwrap().write(&[line]).unwrap();
        site.apply(3);
        let before = site.status("done").unwrap();
        archive(site, site.now().minus(DAY));
        assert_eq!(site.status("done"), Some(before.clone()), "it is not old yet");
        // Others go on meanwhile, so that tables of their own take what comes.
        site.clock.forward(40 * DAY);
        for _ in 0..30 {
            site.post("young", "process.heartbeat", "{}");
        }
        let line = log_rows::row(site, "young", "hello");
        site.store.logs().unwrap().write(&[line]).unwrap();
        site.apply(7);
        archive(site, site.now().minus(30 * DAY));

        let after = site.status("done").unwrap();
        assert_eq!(after.row.status, Status::Archived);
        assert_eq!(after.row.process_name.as_deref(), Some("import"), "its row is kept");
        assert_eq!(after.row.total_executions, 1);
        assert!(after.version > before.version, "an ETag from before is stale");
        assert_eq!(site.status("failed").unwrap().row.status, Status::Archived);
        let runs = site.reader.runs(&acme(), &process("done"), &first(9)).unwrap().unwrap();
        assert_eq!(runs.rows, [], "its runs are gone");
        assert_eq!(site.numbers("done", 0).unwrap(), [0; 0], "and its events");
        let all = LogFilter::default();
        let logs = site.reader.logs(&acme(), &process("done"), &all, &first(9)).unwrap();
        assert_eq!(logs.unwrap().rows, [], "and its lines");
        assert_eq!(site.numbers("young", 0).unwrap().len(), 30, "the young are not touched");
        for (stream, last) in [("done", 2), ("failed", 2), ("order", 1)] {
            let state = site.reader.stream(&acme(), &key(stream)).unwrap().unwrap();
            assert_eq!(state.applied_seq, last, "the last number of {stream} is kept");
            assert_eq!(site.post(stream, "Ordered", "{}").stream_seq, last + 1);
        }
        site.post("done", "process.started", "{}");
        site.catch_up();
        assert_eq!(site.status("done").unwrap().row.status, Status::Running, "it may come back");
        site.apply(10);
        assert_eq!(site.status("done").unwrap().row.status, Status::Running);
        assert_eq!(site.numbers("done", 2).unwrap(), [3, 4]);
    });
}

#[test]
fn an_open_run_is_never_touched_by_retention_whatever_its_age() {
    each(|site| {
        for name in ["running", "paused", "known", "active"] {
            let first = match name {
                "known" => "process.registered",
                "active" => "process.heartbeat",
                _ => "process.started",
            };
            site.post(name, first, "{}");
            for _ in 0..8 {
                site.post(name, "Ordered", "{}");
            }
        }
        site.post("paused", "process.paused", "{}");
        site.post("paused", "process.bogus", "{}");
        site.apply(6);
        site.clock.forward(400 * DAY);
        for _ in 0..25 {
            site.post("young", "Ordered", "{}");
        }
        site.apply(6);
        let names = ["running", "paused", "active"];
        let look = |site: &mut Site| {
            names.map(|name| {
                let runs = site.reader.runs(&acme(), &process(name), &first(9)).unwrap();
                (site.status(name), site.numbers(name, 0), runs)
            })
        };
        let before = look(site);
        archive(site, site.now().minus(30 * DAY));
        assert_eq!(look(site), before);
        assert_eq!(site.status("known").unwrap().row.status, Status::Registered);
        site.reopen();
        assert_eq!(look(site), before);
    });
}

#[test]
fn lines_of_an_open_run_stay_whatever_their_age_and_go_when_it_is_archived() {
    each(|site| {
        let all = LogFilter::default();
        let names = ["running", "paused", "done"];
        let mut session = site.store.logs().unwrap();
        for name in names {
            site.post(name, "process.started", "{}");
        }
        for n in 0..10 {
            let mut rows: Vec<_> =
                names.iter().map(|name| log_rows::row(site, name, &format!("{n}"))).collect();
            // The same process id in another tenant, where nothing runs.
            rows.push(LogRow { tenant: super::tenant("other"), ..rows[0].clone() });
            session.write(&rows).unwrap();
            // Some lines are said at one instant, some on another day.
            if n % 3 == 0 {
                site.clock.forward(DAY);
            }
        }
        site.post("paused", "process.paused", "{}");
        site.post("done", "process.completed", "{}");
        site.apply(10);
        let list = |site: &mut Site, tenant: &TenantId, name: &str| {
            let logs = site.reader.logs(tenant, &process(name), &all, &first(100)).unwrap();
            site.reader.end_turn();
            logs.map(|page| page.rows)
        };
        let before = names.map(|name| list(site, &acme(), name));
        assert!(before.iter().flatten().all(|rows| rows.len() == 10));
        site.clock.forward(40 * DAY);
        let young = log_rows::row(site, "running", "young");
        session.write(&[young]).unwrap();
        archive(site, site.now().minus(30 * DAY));
        let mut running = list(site, &acme(), "running").unwrap();
        assert_eq!(running.pop().unwrap().row.message, "young".into());
        assert_eq!(Some(running), before[0], "every line, as it was");
        assert_eq!(list(site, &acme(), "paused"), before[1]);
        assert_eq!(list(site, &acme(), "done"), Some(Vec::new()), "its run is over");
        assert_eq!(list(site, &super::tenant("other"), "running"), None, "and theirs never began");
        site.reopen();
        assert_eq!(list(site, &acme(), "paused"), before[1]);

        // Its end alone takes nothing; when it is archived, its old lines go.
        site.post("paused", "process.completed", "{}");
        site.apply(10);
        archive(site, site.now().minus(30 * DAY));
        assert_eq!(list(site, &acme(), "paused"), before[1]);
        site.clock.forward(31 * DAY);
        archive(site, site.now().minus(30 * DAY));
        assert_eq!(list(site, &acme(), "paused"), Some(Vec::new()));
        assert_eq!(list(site, &acme(), "running").unwrap().len(), 11);
        let again = log_rows::row(site, "paused", "again");
        session = site.store.logs().unwrap();
        session.write(&[again]).unwrap();
        assert_eq!(list(site, &acme(), "paused").unwrap().len(), 1);
    });
}

#[test]
fn retention_goes_by_portions_however_many_processes_run() {
    const PROCESSES: u64 = 3000;
    const PORTION: usize = 50;
    each(|site| {
        let names: Vec<String> = (0..PROCESSES).map(|n| format!("p{n:04}")).collect();
        let started: Vec<_> =
            names.iter().map(|name| site.envelope(name, "process.started", "{}")).collect();
        site.accept(started);
        for name in ["order", "p0001"] {
            let many = (0..200).map(|_| site.envelope(name, "Ordered", "{}")).collect();
            site.accept(many);
        }
        site.apply(1000);
        site.clock.forward(40 * DAY);
        for _ in 0..20 {
            site.post("young", "Ordered", "{}");
        }
        site.apply(10);
        let before = site.now().minus(30 * DAY);
        let mut keeper = site.store.keeper().unwrap();
        let mut portions = 0_u64;
        loop {
            let touched = keeper.archive(before, PORTION).unwrap();
            if touched == 0 {
                break;
            }
            portions += 1;
            // Between two portions everything that stays is there once.
            if portions.is_multiple_of(20) {
                let numbers = site.numbers("p0001", 0).unwrap();
                assert_eq!(numbers, (1..=201).collect::<Vec<_>>(), "after portion {portions}");
                site.reader.end_turn();
            }
            assert!(portions < 10_000, "archiving comes to no end");
        }
        let portion = PORTION.max(site.differs().sweeps_rows);
        assert!(portions >= 200_u64.div_ceil(portion as u64), "{portions} portions of {portion}");
        if site.differs().sweeps_rows == 0 {
            assert!(portions >= 3200 / PORTION as u64, "{portions} portions of {PORTION}");
        }
        site.reader.end_turn();
        assert_eq!(site.numbers("order", 0).unwrap(), [0; 0], "it is no run");
        assert_eq!(site.numbers("p0001", 0).unwrap(), (1..=201).collect::<Vec<_>>());
        for name in names.iter().step_by(97) {
            assert_eq!(site.numbers(name, 0).unwrap()[0], 1, "{name} runs");
        }
        // Each is listed once, and the totals agree.
        let page = first(1000);
        let started = EventFilter {
            event_type: Some(EventType::parse("process.started").unwrap()),
            ..EventFilter::default()
        };
        let seen = super::pages(
            site,
            page.limit,
            |reader, page| reader.events(&acme(), &started, page).unwrap(),
            |_| {},
        );
        assert_eq!(seen.len() as u64, PROCESSES);
    });
}

#[test]
fn processes_are_counted_by_status_over_all_tenants() {
    each(|site| {
        for name in ["a", "b", "c"] {
            site.post(name, "process.started", "{}");
        }
        site.post("b", "process.failed", "{}");
        site.post("order", "Ordered", "{}");
        let mut theirs = site.envelope("a", "process.started", "{}");
        theirs.tenant = super::tenant("other");
        site.accept_one(theirs);
        site.apply(10);
        let counts = site.store.keeper().unwrap().count_processes().unwrap();
        let of = |status| counts.iter().filter(|(s, _)| *s == status).map(|(_, n)| n).sum::<u64>();
        assert_eq!((of(Status::Running), of(Status::Failed)), (3, 1));
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 4);
        for status in Status::ALL {
            let mentions = counts.iter().filter(|(s, _)| *s == status).count();
            assert_eq!(mentions, 1, "{} has its gauge, also at zero", status.as_str());
        }
    });
}

#[test]
fn upkeep_loses_nothing() {
    each(|site| {
        let mut keeper = site.store.keeper().unwrap();
        for day in 0..6 {
            for _ in 0..9 {
                site.post("s", "Ordered", "{}");
            }
            // Every second day is trimmed with something that is not applied.
            if day % 2 == 0 {
                site.apply(4);
            }
            site.clock.forward(DAY);
            let upkeep = keeper.upkeep(site.now()).unwrap();
            assert!(upkeep.free_bytes > 0);
        }
        drop(keeper);
        site.reopen();
        site.apply(4);
        assert_eq!(site.numbers("s", 0).unwrap(), (1..=54).collect::<Vec<_>>());
        assert_eq!(site.post("s", "Ordered", "{}").stream_seq, 55);
    });
}
