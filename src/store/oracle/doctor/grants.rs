//! What the user of the service may do, held against what it needs: too little stops the service, too much makes an
//! intruder stronger. This module knows the grants of `000_grants_as_dba.sql` and `004_sentinel_pkg.sql`.

use std::collections::{BTreeMap, BTreeSet};

use super::super::bind::{self, Bind};
use super::super::sql::statement;
use super::Look;
use crate::store::doctor::{Check, Finding};

const GRANTS: Check =
    Check::new("grants", "a call that lacks its right fails, and what it was to write waits");
const TOO_MUCH: Check = Check::new(
    "too much granted",
    "whoever takes over the service may do all that its user may, so it gets the rights of the scripts only",
);
const OTHERS: Check = Check::new(
    "grants of others",
    "whoever takes messages off the queue or writes these tables loses or forges what was reported",
);

const PACKAGES: [&str; 2] = ["SENTINEL_PKG", "SENTINEL_SVC"];
const TABLES: [&str; 19] = [
    "PROCESS_REGISTRY",
    "PROCESS_LIVE_STATUS",
    "PROCESS_RUNS",
    "PROCESS_HISTORY",
    "PROCESS_LOGS",
    "EVENTS",
    "IDEMPOTENCY",
    "EVENT_IDENTITY",
    "STREAM_COUNTER",
    "STREAM_STATE",
    "DEAD_LETTER",
    "OUTBOX",
    "SLO_SAMPLES",
    "JOBS",
    "APPROVALS",
    "PLUGINS",
    "SINKS",
    "SDK_ERRORS",
    "SENTINEL_SETTING",
];
const TABLE_PRIVILEGES: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];
const VERSIONS: &str = "SENTINEL_SCHEMA_VERSION";
/// Roles that add nothing to what the scripts grant.
const HARMLESS_ROLES: [&str; 2] = ["CONNECT", "SELECT_CATALOG_ROLE"];
/// Direct privileges that add nothing.
const HARMLESS_PRIVILEGES: [&str; 2] = ["CREATE SESSION", "ALTER SESSION"];

/// A right on an object of the owner.
type Right = (String, String);

/// Every right that the service's user needs.
fn needed() -> BTreeSet<Right> {
    let right = |object: &str, privilege: &str| (object.to_string(), privilege.to_string());
    let packages = PACKAGES.iter().map(|package| right(package, "EXECUTE"));
    let tables =
        TABLES.iter().flat_map(|table| TABLE_PRIVILEGES.map(|privilege| right(table, privilege)));
    packages.chain(tables).chain([right(VERSIONS, "SELECT")]).collect()
}

pub(super) fn examine(look: &Look<'_>) -> Vec<Finding> {
    if look.user == look.owner {
        let found = format!("{} is the owner, who may do everything to its tables", look.user);
        let how =
            "export ORACLE_USERNAME=SENTINEL_SVC   # made by sql/oracle/000_grants_as_dba.sql";
        return vec![TOO_MUCH.warn(found, how)];
    }
    let binds = [Bind::text(&look.owner, 128)];
    let rights = look.ask(GRANTS, "", statement!("doctor_object_grants"), &binds, |row| {
        let right = (bind::text(row, "object_name")?, bind::text(row, "privilege")?);
        Ok((bind::text(row, "given_to")?, right))
    });
    let rights = match rights {
        Ok(rights) => rights,
        Err(finding) => return vec![finding],
    };
    let all = rights.iter().map(|(_, right)| right.clone()).collect();
    let given_to = |whom: &str| {
        let found = rights.iter().filter(|(to, _)| to == whom);
        found.map(|(_, right)| right.clone()).collect::<BTreeSet<Right>>()
    };
    let system = look.ask(TOO_MUCH, "", statement!("doctor_system_grants"), &[], |row| {
        Ok((bind::text(row, "kind")?, bind::text(row, "name")?))
    });
    let is_dba = system.as_ref().is_ok_and(|system| system.iter().any(|(_, name)| name == "DBA"));
    let mut findings = vec![if is_dba {
        GRANTS.unknown(format!("not judged: {} is a DBA, who may do everything", look.user))
    } else {
        judge_missing(&look.owner, &look.user, &all)
    }];
    findings.push(match system {
        Ok(system) => judge_too_much(&look.owner, &look.user, &given_to("OWN"), &system),
        Err(finding) => finding,
    });
    let everybody = given_to("PUBLIC").into_iter().map(|right| ("PUBLIC".to_string(), right));
    let mut others: Vec<(String, Right)> = everybody.collect();
    let binds = [Bind::text(&look.owner, 128), Bind::text(&look.user, 128)];
    let seen =
        look.ask(OTHERS, "dba_tab_privs", statement!("doctor_others_grants"), &binds, |row| {
            let right = (bind::text(row, "object_name")?, bind::text(row, "privilege")?);
            Ok((bind::text(row, "grantee")?, right))
        });
    findings.push(match seen {
        Ok(seen) => {
            others.extend(seen);
            judge_others(&look.owner, &others)
        }
        // What is everybody's is seen without it.
        Err(_) if !others.is_empty() => judge_others(&look.owner, &others),
        Err(finding) => finding,
    });
    findings
}

/// The rights in words, object by object.
fn by_object<'r>(rights: impl IntoIterator<Item = &'r Right>) -> BTreeMap<&'r str, Vec<&'r str>> {
    let mut objects: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (object, privilege) in rights {
        objects.entry(object).or_default().push(privilege);
    }
    objects
}

fn judge_missing(owner: &str, user: &str, held: &BTreeSet<Right>) -> Finding {
    let needed = needed();
    let missing: Vec<&Right> = needed.difference(held).collect();
    if missing.is_empty() {
        return GRANTS.ok(format!("{user} has all {} rights that it needs", needed.len()));
    }
    if missing.len() == needed.len() {
        let found = format!("{user} has no right on anything of {owner}");
        return GRANTS
            .fail(found, "sentinel migrate   # as the owner: 004_sentinel_pkg.sql grants them");
    }
    let objects = by_object(missing.iter().copied());
    let found: Vec<String> = objects
        .iter()
        .map(|(object, rights)| format!("{} on {object}", rights.join(", ")))
        .collect();
    let how: Vec<String> = objects
        .iter()
        .map(|(object, rights)| {
            format!("GRANT {} ON {owner}.{object} TO {user};", rights.join(", "))
        })
        .collect();
    GRANTS.fail(format!("{user} lacks {}", found.join("; ")), how.join("\n"))
}

fn judge_too_much(
    owner: &str,
    user: &str,
    own: &BTreeSet<Right>,
    system: &[(String, String)],
) -> Finding {
    let needed = needed();
    let (mut found, mut how) = (Vec::new(), Vec::new());
    for (kind, name) in system {
        let harmless = if kind == "ROLE" {
            HARMLESS_ROLES.contains(&name.as_str())
        } else {
            HARMLESS_PRIVILEGES.contains(&name.as_str())
        };
        if !harmless {
            found.push(name.clone());
            how.push(format!("REVOKE {name} FROM {user};"));
        }
    }
    for (object, privilege) in own.difference(&needed) {
        found.push(format!("{privilege} on {object}"));
        how.push(revoke(owner, object, privilege, user));
    }
    if found.is_empty() {
        return TOO_MUCH.ok(format!("{user} has nothing beyond what it needs"));
    }
    TOO_MUCH.warn(format!("{user} has {}", found.join(", ")), how.join("\n"))
}

fn judge_others(owner: &str, others: &[(String, Right)]) -> Finding {
    let needed = needed();
    // Who has all that the service needs is another user of it.
    let is_service = |grantee: &str| {
        let held = |right: &Right| others.iter().any(|(to, held)| to == grantee && held == right);
        needed.iter().all(held)
    };
    let mut services: BTreeMap<&str, bool> = BTreeMap::new();
    for (grantee, _) in others {
        services.entry(grantee).or_insert_with(|| is_service(grantee));
    }
    let harmful: Vec<&(String, Right)> = others
        .iter()
        .filter(|(grantee, right)| match right.1.as_str() {
            _ if grantee == "PUBLIC" => true,
            _ if services[grantee.as_str()] && needed.contains(right) => false,
            "EXECUTE" => right.0 == "SENTINEL_SVC",
            privilege => privilege != "SELECT" && privilege != "READ",
        })
        .collect();
    if harmful.is_empty() {
        return OTHERS.ok("nobody else writes the tables or takes from the queue");
    }
    let found: Vec<String> = harmful
        .iter()
        .map(|(grantee, (object, privilege))| format!("{grantee} has {privilege} on {object}"))
        .collect();
    let how: Vec<String> = harmful
        .iter()
        .map(|(grantee, (object, privilege))| revoke(owner, object, privilege, grantee))
        .collect();
    OTHERS.warn(found.join(", "), how.join("\n"))
}

/// Rights on a queue are taken back by a procedure of their own.
fn revoke(owner: &str, object: &str, privilege: &str, user: &str) -> String {
    match privilege {
        "ENQUEUE" | "DEQUEUE" => format!(
            "BEGIN DBMS_AQADM.REVOKE_QUEUE_PRIVILEGE('{privilege}', '{owner}.{object}', '{user}'); END;\n/"
        ),
        _ => format!("REVOKE {privilege} ON {owner}.{object} FROM {user};"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;

    fn right(object: &str, privilege: &str) -> Right {
        (object.to_string(), privilege.to_string())
    }

    #[test]
    fn what_is_needed_is_what_the_script_grants() {
        let script = include_str!("../../../../sql/oracle/004_sentinel_pkg.sql");
        let (_, grants) = script.rsplit_once("PROCEDURE give(").unwrap();
        let (_, list) = grants.split_once("ODCIVARCHAR2LIST(").unwrap();
        let (list, rest) = list.split_once("))").unwrap();
        let tables: BTreeSet<String> =
            list.split('\'').skip(1).step_by(2).map(str::to_ascii_uppercase).collect();
        assert_eq!(tables, TABLES.iter().map(ToString::to_string).collect());
        assert!(
            rest.contains(&format!("give('{}', owned.table_name", TABLE_PRIVILEGES.join(", ")))
        );
        assert!(rest.contains("give('SELECT', 'sentinel_schema_version'"));
        for package in PACKAGES {
            let give =
                format!("give('EXECUTE', '{}', '&sentinel_service.')", package.to_lowercase());
            assert!(grants.contains(&give), "{give}");
        }
    }

    #[test]
    fn a_missing_right_has_its_grant_and_nothing_is_missing_twice() {
        let mut held = needed();
        assert_eq!(judge_missing("O", "U", &held).verdict, Verdict::Ok);
        held.remove(&right("EVENTS", "INSERT"));
        held.remove(&right("EVENTS", "DELETE"));
        held.remove(&right("SENTINEL_SVC", "EXECUTE"));
        let finding = judge_missing("O", "U", &held);
        assert_eq!(finding.verdict, Verdict::Fail);
        assert_eq!(
            finding.mend.as_deref(),
            Some("GRANT DELETE, INSERT ON O.EVENTS TO U;\nGRANT EXECUTE ON O.SENTINEL_SVC TO U;")
        );
        let nothing = judge_missing("O", "U", &BTreeSet::new());
        assert!(nothing.mend.unwrap().starts_with("sentinel migrate"));
    }

    #[test]
    fn too_much_is_taken_back_and_what_the_scripts_grant_is_not_too_much() {
        let session = vec![("PRIVILEGE".to_string(), "CREATE SESSION".to_string())];
        assert_eq!(judge_too_much("O", "U", &needed(), &session).verdict, Verdict::Ok);
        let mut own = needed();
        own.insert(right("SENTINEL_QUEUE", "DEQUEUE"));
        let system = [("ROLE", "DBA"), ("PRIVILEGE", "UNLIMITED TABLESPACE")]
            .map(|(kind, name)| (kind.to_string(), name.to_string()));
        let finding = judge_too_much("O", "U", &own, &system);
        assert_eq!(finding.verdict, Verdict::Warn);
        let how = finding.mend.unwrap();
        for line in [
            "REVOKE DBA FROM U;",
            "REVOKE UNLIMITED TABLESPACE FROM U;",
            "REVOKE_QUEUE_PRIVILEGE('DEQUEUE', 'O.SENTINEL_QUEUE', 'U')",
        ] {
            assert!(how.contains(line), "{how}");
        }
    }

    #[test]
    fn a_producer_calls_and_a_report_reads_and_neither_takes() {
        let of = |grantee: &str, object: &str, privilege: &str| {
            (grantee.to_string(), right(object, privilege))
        };
        let fine = [of("CLM_APP", "SENTINEL_PKG", "EXECUTE"), of("REPORTS", "EVENTS", "SELECT")];
        assert_eq!(judge_others("O", &fine).verdict, Verdict::Ok);
        let second = needed().into_iter().map(|right| ("SENTINEL_SVC2".to_string(), right));
        assert_eq!(judge_others("O", &second.collect::<Vec<_>>()).verdict, Verdict::Ok);
        for bad in [
            of("CLM_APP", "SENTINEL_QUEUE", "DEQUEUE"),
            of("CLM_APP", "SENTINEL_SVC", "EXECUTE"),
            of("CLM_APP", "EVENTS", "DELETE"),
            of("PUBLIC", "EVENTS", "SELECT"),
        ] {
            let finding = judge_others("O", &[bad]);
            assert_eq!(finding.verdict, Verdict::Warn, "{finding:?}");
        }
    }
}
