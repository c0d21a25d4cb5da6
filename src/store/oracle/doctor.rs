//! What is wrong with an Oracle database as the service's user sees it. This module asks for each fact by itself, so
//! that one that cannot be had hides no other, and judges them in pure code.

use std::sync::Arc;

use super::health::{Health, QueueState};
use super::session::{self, Database};
use super::{Settings, address, errors, keeper, migrate};
use crate::store::doctor::Finding;

/// The clocks may differ by this much: the service goes by the database's, and people read both.
const OFFSET_US_MAX: i64 = 1_000_000;
/// More messages than this are no passing burst.
const READY_MAX: u64 = 100_000;

/// Looks at everything; nothing is changed.
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![judge_descriptor(&address::unfit(&settings.address.connect))];
    match session::load_client(&settings.address) {
        Ok(version) => findings.push(Finding::fine("client", format!("version {version}"))),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            findings.push(Finding::mend(
                "client",
                cause.unwrap_or_else(|| error.to_string()),
                "echo /opt/oracle/instantclient > /etc/ld.so.conf.d/oracle.conf && ldconfig",
            ));
            return findings;
        }
    }
    let schema = settings.schema.clone();
    let database = Database::new(settings.address.clone(), settings.care.clone(), schema);
    let connection = match session::open(&database, "doctor") {
        Ok(connection) => connection,
        Err(error) => {
            let advice = errors::class_of(&error).advice();
            findings.push(Finding::mend(
                "session",
                errors::clean(&error.to_string()),
                advice.unwrap_or("sentinel check-config   # says which address it goes by"),
            ));
            return findings;
        }
    };
    let version = database.version.lock().clone();
    findings.push(Finding::fine("session", version.unwrap_or_else(|| "open".to_string())));
    findings.push(match session::unfit(&connection) {
        Ok(problems) => judge_character_set(problems.first()),
        Err(error) => unseen("character set", &error),
    });
    let health = Arc::new(Health::new(Arc::clone(&settings.clock)));
    findings.push(match keeper::compare_clocks(&connection, &health) {
        Ok(()) => judge_clock(health.offset_us()),
        Err(error) => unseen("clock", &error),
    });
    match keeper::queues(&connection) {
        Ok(queues) if queues.is_empty() => {
            findings.push(Finding::mend("queue", "there is none", "sentinel migrate"));
        }
        Ok(queues) => findings.extend(queues.iter().map(|queue| {
            judge_queue(queue, keeper::is_exception_queue(&queue.name), &settings.schema)
        })),
        // The one procedure that every grant of the service's user leads to.
        Err(error) => findings.push(Finding::mend(
            "queue",
            errors::clean(&error.to_string()),
            format!(
                "if the message names a missing object or right: GRANT EXECUTE ON {}.sentinel_svc TO the service's user",
                settings.schema
            ),
        )),
    }
    findings.push(match migrate::installed(&connection, &settings.schema) {
        Ok(installed) => judge_schema(migrate::plan(migrate::SCRIPTS, &installed)),
        Err(error) => unseen("schema", &error),
    });
    if let Err(error) = connection.close() {
        log::debug!("closing the session: {error}");
    }
    findings
}

fn judge_descriptor(problems: &[String]) -> Finding {
    match problems.first() {
        None => Finding::fine("descriptor", "neither SERVER=POOLED nor FAILOVER_MODE in it"),
        Some(problem) => Finding::mend(
            "descriptor",
            problem.as_str(),
            "(CONNECT_DATA=(SERVER=DEDICATED)(SERVICE_NAME=...))",
        ),
    }
}

fn judge_character_set(problem: Option<&String>) -> Finding {
    match problem {
        None => Finding::fine("character set", "AL32UTF8"),
        Some(problem) => Finding::mend(
            "character set",
            problem.as_str(),
            "CREATE PLUGGABLE DATABASE ...   -- in a container whose character set is AL32UTF8",
        ),
    }
}

fn judge_clock(offset_us: i64) -> Finding {
    let found = format!("the database's is {} ms ahead of ours", offset_us / 1000);
    if offset_us.saturating_abs() > OFFSET_US_MAX {
        Finding::mend("clock", found, "timedatectl set-ntp true   # on both machines")
    } else {
        Finding::fine("clock", found)
    }
}

fn judge_queue(queue: &QueueState, is_exception: bool, schema: &str) -> Finding {
    let check = if is_exception { "exception queue" } else { "queue" };
    let found = format!(
        "{}: {} ready, {} waiting, {} expired",
        queue.name, queue.ready, queue.waiting, queue.expired
    );
    let name = queue.name.rsplit('.').next().unwrap_or(&queue.name).trim_matches('"');
    if !queue.gives || !(queue.takes || is_exception) {
        let enqueue = if is_exception { "FALSE" } else { "TRUE" };
        return Finding::mend(
            check,
            format!("{found}; it is stopped"),
            format!("BEGIN DBMS_AQADM.START_QUEUE('{schema}.{name}', {enqueue}, TRUE); END;\n/"),
        );
    }
    // A running service sweeps the exception queue, and drains the other one.
    if queue.expired > 0 || queue.ready > if is_exception { 0 } else { READY_MAX } {
        let how = "sentinel health --ready   # a service that runs and is well empties it";
        return Finding::mend(check, found, how);
    }
    Finding::fine(check, found)
}

fn judge_schema(
    plan: Result<Vec<(migrate::Script, migrate::Step)>, migrate::MigrateError>,
) -> Finding {
    const CHECK: &str = "schema";
    const MIGRATE: &str = "sentinel migrate   # as the owner of the schema";
    match plan {
        Ok(plan) => {
            let count = |step| plan.iter().filter(|(_, found)| *found == step).count();
            match (count(migrate::Step::Apply), count(migrate::Step::Repeat)) {
                (0, 0) => Finding::fine(CHECK, format!("all {} scripts are applied", plan.len())),
                (0, by_hand) => Finding::unknown(
                    CHECK,
                    format!("{by_hand} scripts were run by hand, so drift cannot be seen"),
                ),
                (missing, _) => {
                    Finding::mend(CHECK, format!("{missing} scripts are not applied"), MIGRATE)
                }
            }
        }
        Err(error) => Finding::mend(CHECK, error.to_string(), "sentinel migrate --check"),
    }
}

fn unseen(check: &'static str, error: &oracle::Error) -> Finding {
    Finding::unknown(check, format!("cannot be seen: {}", errors::clean(&error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;

    #[test]
    fn every_fact_is_judged_and_what_must_be_mended_says_how() {
        let queue = |takes, gives, ready, expired| QueueState {
            name: "SENTINEL.Q".into(),
            takes,
            gives,
            ready,
            waiting: 0,
            expired,
            oldest: None,
        };
        let pooled = vec!["SERVER=POOLED".to_string()];
        let step = |step| Ok(vec![(migrate::SCRIPTS[0], step)]);
        let newer = migrate::MigrateError::Newer { found: 9, known: 4 };
        let table = [
            (judge_descriptor(&[]), Verdict::Fine),
            (judge_descriptor(&pooled), Verdict::Mend),
            (judge_character_set(None), Verdict::Fine),
            (judge_character_set(Some(&"WE8".to_string())), Verdict::Mend),
            (judge_clock(-OFFSET_US_MAX), Verdict::Fine),
            (judge_clock(-OFFSET_US_MAX - 1), Verdict::Mend),
            (judge_queue(&queue(true, true, 5, 0), false, "S"), Verdict::Fine),
            (judge_queue(&queue(false, true, 5, 0), false, "S"), Verdict::Mend),
            (judge_queue(&queue(true, true, READY_MAX + 1, 0), false, "S"), Verdict::Mend),
            (judge_queue(&queue(false, true, 0, 0), true, "S"), Verdict::Fine),
            (judge_queue(&queue(false, true, 0, 1), true, "S"), Verdict::Mend),
            (judge_queue(&queue(false, false, 0, 0), true, "S"), Verdict::Mend),
            (judge_schema(step(migrate::Step::UpToDate)), Verdict::Fine),
            (judge_schema(step(migrate::Step::Repeat)), Verdict::Unknown),
            (judge_schema(step(migrate::Step::Apply)), Verdict::Mend),
            (judge_schema(Err(newer)), Verdict::Mend),
        ];
        for (finding, wanted) in table {
            assert_eq!(finding.verdict, wanted, "{finding:?}");
            assert_eq!(finding.mend.is_some(), wanted == Verdict::Mend, "{finding:?}");
        }
        let stopped = judge_queue(&queue(true, false, 0, 0), false, "S");
        assert!(stopped.mend.unwrap().contains("START_QUEUE('S.Q', TRUE, TRUE)"));
    }
}
