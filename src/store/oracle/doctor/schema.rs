//! Whether the schema is that of this program, and whether all of it works. This module compares versions and
//! checksums, and looks for what does not compile and for indexes that cannot be used.

use super::super::bind::{self, Bind};
use super::super::migrate::{self, MigrateError, Script, Step};
use super::super::sql::statement;
use super::{Look, unseen};
use crate::store::doctor::{Check, Finding};

const SCHEMA: Check = Check::new(
    "schema",
    "a program and a schema of different releases misunderstand each other's rows",
);
const OBJECTS: Check = Check::new(
    "objects",
    "what does not compile fails at its next call: sentinel_pkg in business code, sentinel_svc in the service",
);
const INDEXES: Check = Check::new(
    "indexes",
    "an unusable index makes inserts fail where it is unique, and reads slow where it is not",
);

pub(super) fn examine(look: &Look<'_>) -> Vec<Finding> {
    let version = match migrate::installed(look.connection, &look.owner) {
        Ok(installed) => judge_schema(migrate::plan(migrate::SCRIPTS, &installed)),
        Err(error) => unseen(SCHEMA, &error.to_string()),
    };
    vec![version, objects(look), indexes(look)]
}

fn judge_schema(plan: Result<Vec<(Script, Step)>, MigrateError>) -> Finding {
    const MIGRATE: &str = "sentinel migrate   # as the owner of the schema";
    match plan {
        Ok(plan) => {
            let count = |step| plan.iter().filter(|(_, found)| *found == step).count();
            match (count(Step::Apply), count(Step::Repeat)) {
                (0, 0) => SCHEMA.ok(format!("all {} scripts are applied", plan.len())),
                (0, by_hand) => SCHEMA
                    .unknown(format!("{by_hand} scripts were run by hand, so drift cannot be seen"))
                    .with(MIGRATE),
                (missing, _) => SCHEMA.fail(format!("{missing} scripts are not applied"), MIGRATE),
            }
        }
        Err(error) => SCHEMA.fail(error.to_string(), "sentinel migrate --check"),
    }
}

fn objects(look: &Look<'_>) -> Finding {
    let binds = [Bind::text(&look.owner, 128)];
    let ask = |view, file| {
        look.ask(OBJECTS, view, file, &binds, |row| {
            Ok((bind::text(row, "object_type")?, bind::text(row, "object_name")?))
        })
    };
    match ask("dba_objects", statement!("doctor_all_invalid_objects")) {
        Ok(invalid) => judge_objects(&look.owner, &invalid, true),
        // Without that right the bodies of packages are not seen.
        Err(hidden) => match ask("", statement!("doctor_invalid_objects")) {
            Ok(invalid) => Finding {
                mend: judge_objects(&look.owner, &invalid, false).mend.or(hidden.mend),
                ..judge_objects(&look.owner, &invalid, false)
            },
            Err(finding) => finding,
        },
    }
}

/// `whole`: bodies of packages were looked at, too.
fn judge_objects(owner: &str, invalid: &[(String, String)], whole: bool) -> Finding {
    if invalid.is_empty() && whole {
        return OBJECTS.ok("all compile");
    }
    if invalid.is_empty() {
        return OBJECTS
            .unknown("what this user sees compiles; bodies of packages need SELECT on DBA_OBJECTS (optional)");
    }
    let found: Vec<String> =
        invalid.iter().map(|(kind, name)| format!("{} {name}", kind.to_lowercase())).collect();
    let how: Vec<String> = invalid.iter().map(|(kind, name)| compile(owner, kind, name)).collect();
    OBJECTS.fail(format!("do not compile: {}", found.join(", ")), how.join("\n"))
}

fn compile(owner: &str, kind: &str, name: &str) -> String {
    match kind.strip_suffix(" BODY") {
        Some(kind) => format!("ALTER {kind} {owner}.{name} COMPILE BODY;"),
        None => format!("ALTER {kind} {owner}.{name} COMPILE;"),
    }
}

fn indexes(look: &Look<'_>) -> Finding {
    let binds = [Bind::text(&look.owner, 128), Bind::text(&look.owner, 128)];
    let seen = look.ask(INDEXES, "", statement!("doctor_unusable_indexes"), &binds, |row| {
        Ok((bind::text(row, "index_name")?, bind::optional_text(row, "partition_name")?))
    });
    match seen {
        Ok(unusable) => judge_indexes(&look.owner, &unusable),
        Err(finding) => finding,
    }
}

fn judge_indexes(owner: &str, unusable: &[(String, Option<String>)]) -> Finding {
    if unusable.is_empty() {
        return INDEXES.ok("all can be used");
    }
    let names: Vec<&str> = unusable.iter().map(|(index, _)| index.as_str()).collect();
    let how: Vec<String> = unusable
        .iter()
        .map(|(index, partition)| {
            let part =
                partition.as_ref().map(|name| format!(" PARTITION {name}")).unwrap_or_default();
            format!("ALTER INDEX {owner}.{index} REBUILD{part};")
        })
        .collect();
    INDEXES.fail(format!("cannot be used: {}", names.join(", ")), how.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;

    #[test]
    fn drift_and_what_does_not_compile_have_their_statements() {
        let step = |step| Ok(vec![(migrate::SCRIPTS[0], step)]);
        let newer = MigrateError::Newer { found: 9, known: 4 };
        let body = [("PACKAGE BODY".to_string(), "SENTINEL_SVC".to_string())];
        let index = [("I".to_string(), None), ("J".to_string(), Some("P1".to_string()))];
        let table = [
            (judge_schema(step(Step::UpToDate)), Verdict::Ok, ""),
            (judge_schema(step(Step::Repeat)), Verdict::Unknown, "sentinel migrate"),
            (judge_schema(step(Step::Apply)), Verdict::Fail, "sentinel migrate"),
            (judge_schema(Err(newer)), Verdict::Fail, "sentinel migrate --check"),
            (judge_objects("O", &[], true), Verdict::Ok, ""),
            (judge_objects("O", &[], false), Verdict::Unknown, ""),
            (
                judge_objects("O", &body, false),
                Verdict::Fail,
                "ALTER PACKAGE O.SENTINEL_SVC COMPILE BODY;",
            ),
            (judge_indexes("O", &[]), Verdict::Ok, ""),
            (
                judge_indexes("O", &index),
                Verdict::Fail,
                "ALTER INDEX O.I REBUILD;\nALTER INDEX O.J REBUILD PARTITION P1;",
            ),
        ];
        for (finding, wanted, how) in table {
            assert_eq!(finding.verdict, wanted, "{finding:?}");
            assert!(finding.mend.unwrap_or_default().starts_with(how));
        }
    }
}
