//! Room for what comes: partitions, tablespaces and quotas. This module judges how far they reach.

use super::super::bind::{self, Bind};
use super::super::facts;
use super::super::sql::statement;
use super::{Look, unseen};
use crate::domain::time::Timestamp;
use crate::store::doctor::{Check, Finding};

const PARTITIONS: Check = Check::new(
    "partitions",
    "a row that no partition takes is refused (ORA-14400), and with it every event and line of that day",
);
const TABLESPACE: Check =
    Check::new("tablespace", "a full tablespace refuses every insert (ORA-01653)");
const QUOTA: Check = Check::new("quota", "an owner without room refuses every insert (ORA-01536)");

/// The tables that are partitioned, where any is.
const TABLES: [&str; 2] = ["EVENTS", "PROCESS_LOGS"];
/// Oracle has no more than 1,048,575 partitions in a table.
const PARTITIONS_MAX: u64 = 1_000_000;
/// Ranges that somebody makes by hand must reach so many days ahead.
const AHEAD_DAYS: i64 = 7;
const DAY_US: i64 = 24 * 3600 * 1_000_000;
const FILLED_WARNS: f64 = 85.0;
const FILLED_FAILS: f64 = 97.0;

pub(super) fn examine(look: &Look<'_>) -> Vec<Finding> {
    vec![partitions(look), tablespaces(look), quotas(look)]
}

/// How a table is partitioned.
#[derive(Debug, Clone, Default)]
struct Partitioned {
    count: u64,
    /// The database makes new ones by itself.
    by_interval: bool,
    /// Where the last one ends; None: it takes everything, or its end cannot be read.
    end: Option<Timestamp>,
}

fn partitions(look: &Look<'_>) -> Finding {
    let wanted = match facts::setting(look.connection, "partitioning") {
        Ok(wanted) => wanted.as_deref() == Some("ON"),
        Err(error) => return unseen(PARTITIONS, &error.to_string()),
    };
    if !wanted {
        return PARTITIONS.ok("none: retention deletes rows, 5,000 at a time");
    }
    let binds = [Bind::text(&look.owner, 128)];
    let seen = look.ask(PARTITIONS, "", statement!("doctor_partitioned_tables"), &binds, |row| {
        let by_interval = bind::optional_text(row, "interval_text")?.is_some();
        let count = bind::count(row, "partitions")?;
        Ok((bind::text(row, "table_name")?, Partitioned { count, by_interval, end: None }))
    });
    let mut tables = match seen {
        Ok(tables) => tables,
        Err(finding) => return finding,
    };
    for (table, partitioned) in tables.iter_mut().filter(|(_, table)| !table.by_interval) {
        let binds = [Bind::text(&look.owner, 128), Bind::text(table, 128)];
        let ends = look.ask(PARTITIONS, "", statement!("doctor_partitions"), &binds, |row| {
            bind::text(row, "high_value")
        });
        match ends {
            Ok(ends) => partitioned.end = ends.last().and_then(|end| end_of(end)),
            Err(finding) => return finding,
        }
    }
    judge_partitions(&look.owner, &tables, look.now())
}

/// The moment in `TIMESTAMP' 2026-11-22 00:00:00'`, as the dictionary writes it.
fn end_of(text: &str) -> Option<Timestamp> {
    let inner = text.split('\'').nth(1)?.trim();
    let (date, time) = inner.split_once(' ')?;
    Timestamp::parse(&format!("{date}T{time}Z"))
}

fn judge_partitions(owner: &str, tables: &[(String, Partitioned)], now: Timestamp) -> Finding {
    let (mut found, mut how) = (Vec::new(), Vec::new());
    let mut runs_out = false;
    for name in TABLES {
        let Some((_, table)) = tables.iter().find(|(table, _)| table == name) else {
            found.push(format!("{name} has none, and sentinel_setting says that it has"));
            how.push(format!(
                "UPDATE {owner}.sentinel_setting SET value = 'OFF' WHERE name = 'partitioning'; COMMIT;"
            ));
            continue;
        };
        if table.by_interval && table.count < PARTITIONS_MAX {
            found.push(format!("{name}: {} so far, a new one each day by itself", table.count));
            continue;
        }
        if table.by_interval {
            found.push(format!("{name}: {} of 1048575", table.count));
            how.push(
                "sentinel health --ready   # retention drops partitions where a service runs"
                    .to_string(),
            );
            continue;
        }
        let left_days = table.end.map(|end| (end.micros() - now.micros()).div_euclid(DAY_US));
        found.push(match left_days {
            Some(days) if days < 0 => format!("{name}: the last one has ended"),
            Some(days) => format!("{name}: the last one ends in {days} days"),
            None => format!("{name}: not by interval, with a last one that takes all"),
        });
        runs_out |= left_days.is_some_and(|days| days < 0);
        if left_days.is_none_or(|days| days < AHEAD_DAYS) {
            how.push(format!(
                "ALTER TABLE {owner}.{name} SET INTERVAL (NUMTODSINTERVAL(1, 'DAY'));"
            ));
        }
    }
    how.dedup();
    match (how.is_empty(), runs_out) {
        (true, _) => PARTITIONS.ok(found.join("; ")),
        (false, true) => PARTITIONS.fail(found.join("; "), how.join("\n")),
        (false, false) => PARTITIONS.warn(found.join("; "), how.join("\n")),
    }
}

fn tablespaces(look: &Look<'_>) -> Finding {
    let binds = [Bind::text(&look.owner, 128)];
    let view = "dba_tablespace_usage_metrics";
    let seen = look.ask(TABLESPACE, view, statement!("doctor_tablespaces"), &binds, |row| {
        let percent = bind::optional_number(row, "used_percent")?.unwrap_or(0.0);
        Ok((bind::text(row, "tablespace_name")?, percent))
    });
    match seen {
        Ok(spaces) => judge_tablespaces(&spaces),
        Err(finding) => finding,
    }
}

fn judge_tablespaces(spaces: &[(String, f64)]) -> Finding {
    let Some((name, percent)) = spaces.iter().max_by(|a, b| a.1.total_cmp(&b.1)) else {
        return TABLESPACE
            .unknown("not judged: the database tells of no tablespace of these tables");
    };
    let how = || {
        format!(
            "ALTER TABLESPACE {name} ADD DATAFILE SIZE 1G AUTOEXTEND ON NEXT 256M MAXSIZE 30G;   -- with a file name \
             where DB_CREATE_FILE_DEST is not set"
        )
    };
    judge_filled(TABLESPACE, format!("{name} is {percent:.0} % full"), *percent, how)
}

fn judge_filled(check: Check, found: String, percent: f64, how: impl Fn() -> String) -> Finding {
    if percent >= FILLED_FAILS {
        check.fail(found, how())
    } else if percent >= FILLED_WARNS {
        check.warn(found, how())
    } else {
        check.ok(found)
    }
}

fn quotas(look: &Look<'_>) -> Finding {
    let binds = [Bind::text(&look.owner, 128)];
    let seen = look.ask(QUOTA, "dba_ts_quotas", statement!("doctor_quotas"), &binds, |row| {
        let numbers = ["used_bytes", "max_bytes"].map(|name| bind::optional_number(row, name));
        let [used, most] = numbers;
        Ok((bind::text(row, "tablespace_name")?, used?.unwrap_or(0.0), most?.unwrap_or(0.0)))
    });
    match seen {
        Ok(quotas) => judge_quotas(&look.owner, &quotas),
        Err(finding) => finding,
    }
}

/// `max_bytes` below 0: without a bound.
fn judge_quotas(owner: &str, quotas: &[(String, f64, f64)]) -> Finding {
    let filled = |used: f64, most: f64| if most < 0.0 { 0.0 } else { 100.0 * used / most.max(1.0) };
    let worst = quotas
        .iter()
        .map(|(name, used, most)| (name, filled(*used, *most)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    let Some((name, percent)) = worst else {
        return QUOTA.unknown(format!(
            "not judged: {owner} has no quota of its own, perhaps UNLIMITED TABLESPACE"
        ));
    };
    let how = || format!("ALTER USER {owner} QUOTA UNLIMITED ON {name};");
    judge_filled(
        QUOTA,
        format!("{owner} has used {percent:.0} % of its quota on {name}"),
        percent,
        how,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;

    #[test]
    fn partitions_are_made_by_the_database_or_must_reach_ahead() {
        let now = Timestamp::parse("2026-11-21T12:00:00Z").unwrap();
        let by_interval = Partitioned { count: 40, by_interval: true, end: None };
        let until = |text: &str| Partitioned { count: 40, by_interval: false, end: end_of(text) };
        let both =
            |table: Partitioned| TABLES.map(|name| (name.to_string(), table.clone())).to_vec();
        let table = [
            (both(by_interval.clone()), Verdict::Ok, ""),
            (both(until("TIMESTAMP' 2026-12-21 00:00:00'")), Verdict::Ok, ""),
            (
                both(until("TIMESTAMP' 2026-11-24 00:00:00'")),
                Verdict::Warn,
                "ALTER TABLE S.EVENTS SET INTERVAL",
            ),
            (
                both(until("TIMESTAMP' 2026-11-21 00:00:00'")),
                Verdict::Fail,
                "ALTER TABLE S.EVENTS SET INTERVAL",
            ),
            (both(until("MAXVALUE")), Verdict::Warn, "ALTER TABLE S.EVENTS SET INTERVAL"),
            (vec![("EVENTS".to_string(), by_interval)], Verdict::Warn, "UPDATE S.sentinel_setting"),
        ];
        for (tables, wanted, how) in table {
            let finding = judge_partitions("S", &tables, now);
            assert_eq!(finding.verdict, wanted, "{finding:?}");
            assert!(finding.mend.unwrap_or_default().starts_with(how));
        }
    }

    #[test]
    fn room_is_judged_before_it_is_gone() {
        let space =
            |percent| judge_tablespaces(&[("A".to_string(), 1.0), ("B".to_string(), percent)]);
        assert_eq!(space(84.0).verdict, Verdict::Ok);
        assert_eq!(space(86.0).verdict, Verdict::Warn);
        assert_eq!(space(99.0).verdict, Verdict::Fail);
        assert!(space(99.0).mend.unwrap().starts_with("ALTER TABLESPACE B ADD DATAFILE"));
        let quota = |used, most| judge_quotas("S", &[("B".to_string(), used, most)]);
        assert_eq!(quota(5e12, -1.0).verdict, Verdict::Ok);
        assert_eq!(quota(90.0, 100.0).verdict, Verdict::Warn);
        assert_eq!(quota(100.0, 100.0).mend.unwrap(), "ALTER USER S QUOTA UNLIMITED ON B;");
        assert_eq!(quota(0.0, 0.0).verdict, Verdict::Ok);
    }
}
