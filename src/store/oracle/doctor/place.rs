//! Where a session is and how it got there: the descriptor, the network, the character set, the clocks. This module
//! also says what to do when there is no session at all.

use std::fs;
use std::sync::Arc;

use oracle::Connection;

use super::super::address::{self, Address, Credentials};
use super::super::errors::{self, Class};
use super::super::health::Health;
use super::super::sql::{statement, text};
use super::super::{bind, facts, misfits};
use super::{Look, SERVICE, unseen};
use crate::store::doctor::{Check, Finding};

const DESCRIPTOR: Check = Check::new(
    "descriptor",
    "a pooled or replayed session loses what this service keeps on its own: transactions, client identifier, cursors",
);
const SESSION: Check =
    Check::new("session", "without a session nothing is taken and nothing is answered");
const NETWORK: Check =
    Check::new("network", "over plain TCP everybody on the way can read and change what is said");
const POOLING: Check = Check::new(
    "server process",
    "a listener holds its session for hours, which a shared or pooled server process is not made for",
);
const CHARACTER_SET: Check = Check::new(
    "character set",
    "any set but AL32UTF8 loses characters of names and messages without telling",
);
const CLOCK: Check = Check::new(
    "clock",
    "deadlines and ages go by the database's clock, while tokens and posted times are held against ours",
);
const TIME_ZONE: Check = Check::new(
    "time zone",
    "all times are kept in UTC, and a session in another zone would shift them",
);

/// The clocks may differ by this much: people read both.
const OFFSET_US_MAX: i64 = 1_000_000;
/// Beyond this, events are dated wrongly enough to be refused, and judgements come visibly early or late.
const OFFSET_US_FAILS: i64 = 60_000_000;

/// Who a session is, and where.
pub(super) struct Place {
    pub(super) user: String,
    pub(super) schema: String,
    service: String,
    instance: String,
    protocol: Option<String>,
    session_zone: String,
    database_zone: String,
}

/// Asks the session.
pub(super) fn of(connection: &Connection) -> oracle::Result<Place> {
    let ask = text(statement!("doctor_session"), &[]);
    let found = bind::query(connection, &ask, &[], 1, |row| {
        Ok(Place {
            user: bind::text(row, "user_name")?,
            schema: bind::text(row, "schema_name")?,
            service: bind::text(row, "service_name")?,
            instance: bind::text(row, "instance_name")?,
            protocol: bind::optional_text(row, "network_protocol")?,
            session_zone: bind::text(row, "session_zone")?,
            database_zone: bind::text(row, "database_zone")?,
        })
    })?;
    found.into_iter().next().ok_or_else(|| {
        oracle::Error::new(
            oracle::ErrorKind::Other,
            "the session says nothing of itself".to_string(),
        )
    })
}

pub(super) fn examine(
    look: &Look<'_>,
    place: oracle::Result<Place>,
    version: &str,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    match place {
        Ok(place) => {
            findings.push(SESSION.ok(format!(
                "{} at service {}, instance {}, schema {}: {version}",
                place.user, place.service, place.instance, look.owner
            )));
            findings.push(judge_network(place.protocol.as_deref()));
            findings.push(zone(look, &place));
        }
        Err(error) => findings.push(unseen(SESSION, &error.to_string())),
    }
    findings.push(process(look));
    findings.push(match misfits::of_database(look.connection) {
        Ok(problems) => judge_character_set(problems.first()),
        Err(error) => unseen(CHARACTER_SET, &error.to_string()),
    });
    let health = Arc::new(Health::new(Arc::clone(&look.settings.clock)));
    findings.push(match facts::compare_clocks(look.connection, &health) {
        Ok(()) => judge_clock(health.offset_us()),
        Err(error) => unseen(CLOCK, &error.to_string()),
    });
    findings
}

/// What is wrong with the descriptor, the one of an alias included where it lies in the wallet's folder.
pub(super) fn descriptor(address: &Address) -> Finding {
    let connect = &address.connect;
    let is_alias = !connect.contains(['(', '/', ':']);
    if !is_alias {
        return judge_descriptor("the address", connect);
    }
    let file = address.wallet.as_ref().map(|folder| folder.join("tnsnames.ora"));
    let Some(text) = file.as_ref().and_then(|file| fs::read_to_string(file).ok()) else {
        return DESCRIPTOR.unknown(format!(
            "not judged: {connect} is an alias, and ORACLE_WALLET_LOCATION holds no tnsnames.ora that can be read"
        ));
    };
    match entry_of(&text, connect) {
        Some(entry) => judge_descriptor(&format!("the entry {connect} of tnsnames.ora"), entry),
        None => DESCRIPTOR.fail(
            format!("tnsnames.ora has no entry {connect}"),
            format!(
                "{connect} = (DESCRIPTION = (ADDRESS = (PROTOCOL = TCPS) (HOST = db.example.com) (PORT = 1522)) \
                 (CONNECT_DATA = (SERVICE_NAME = clm.example.com)))"
            ),
        ),
    }
}

/// The value of an alias: what stands in the parentheses after it.
fn entry_of<'t>(text: &'t str, alias: &str) -> Option<&'t str> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let name = line.split_once('=').map(|(name, _)| name.trim());
        let is_it = !line.starts_with([' ', '\t', '#'])
            && name.is_some_and(|names| {
                names.split(',').any(|name| name.trim().eq_ignore_ascii_case(alias))
            });
        if is_it {
            let open = start + text[start..].find('(')?;
            let mut depth = 0_usize;
            for (at, letter) in text[open..].char_indices() {
                match letter {
                    '(' => depth += 1,
                    ')' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    return Some(&text[open..=open + at]);
                }
            }
            return None;
        }
        start += line.len();
    }
    None
}

fn judge_descriptor(what: &str, connect: &str) -> Finding {
    match address::unfit(connect).into_iter().next() {
        None => DESCRIPTOR.ok(format!("{what} has neither SERVER=POOLED nor FAILOVER_MODE")),
        Some(problem) => DESCRIPTOR.fail(
            format!("{what}: {problem}"),
            "(CONNECT_DATA = (SERVER = DEDICATED) (SERVICE_NAME = ...))   # and no FAILOVER_MODE",
        ),
    }
}

/// Says why there is no session, and what opens the way.
pub(super) fn judge_refusal(address: &Address, error: &oracle::Error) -> Finding {
    let user = match &address.credentials {
        Credentials::Password { user, .. } => user.to_ascii_uppercase(),
        Credentials::Wallet => SERVICE.to_string(),
    };
    let words = errors::clean(&error.to_string());
    let how = way_in(errors::class_of(error), errors::ora_in_text(&words), &user);
    SESSION.fail(words, how)
}

fn way_in(class: Class, code: Option<i32>, user: &str) -> String {
    match code {
        Some(1017 | 28001) => format!(
            "ALTER USER {user} IDENTIFIED BY \"a new password\";   -- the same into ORACLE_PASSWORD_FILE or wallet"
        ),
        Some(28000) => format!("ALTER USER {user} ACCOUNT UNLOCK;"),
        Some(1045) => format!("GRANT CREATE SESSION TO {user};"),
        Some(1435) => {
            "@sql/oracle/000_grants_as_dba.sql   -- as a DBA: there is no such schema".to_string()
        }
        Some(12514) => {
            "SELECT name FROM v$services;   -- which service to name in the address".to_string()
        }
        Some(12541) => "lsnrctl start   # on the database's machine".to_string(),
        _ if class == Class::Wallet => {
            "orapki wallet display -wallet \"$ORACLE_WALLET_LOCATION\" -complete".to_string()
        }
        _ => class
            .advice()
            .unwrap_or("sentinel check-config   # says which address it goes by")
            .to_string(),
    }
}

fn judge_network(protocol: Option<&str>) -> Finding {
    match protocol {
        Some(protocol) if protocol.eq_ignore_ascii_case("tcps") => NETWORK.ok("TLS (tcps)"),
        Some(protocol) => NETWORK.warn(
            format!("plain {protocol}, unless sqlnet.ora turns on native encryption"),
            "(ADDRESS = (PROTOCOL = TCPS) (HOST = db.example.com) (PORT = 1522))   # or ORACLE_HOST, which builds one",
        ),
        None => NETWORK.unknown("not judged: the database does not tell the protocol"),
    }
}

fn zone(look: &Look<'_>, place: &Place) -> Finding {
    let file =
        look.ask(TIME_ZONE, "v_$timezone_file", statement!("doctor_time_zone_file"), &[], |row| {
            bind::integer(row, "version")
        });
    let file = file.ok().and_then(|versions| versions.first().copied());
    judge_zone(&place.session_zone, &place.database_zone, file)
}

fn judge_zone(session: &str, database: &str, file: Option<i64>) -> Finding {
    let file = file.map_or_else(String::new, |version| format!(", time zone file {version}"));
    let found = format!("the session is at {session}, the database at {database}{file}");
    if matches!(session, "+00:00" | "UTC") {
        TIME_ZONE.ok(found)
    } else {
        TIME_ZONE.fail(
            found,
            "SELECT trigger_name FROM dba_triggers WHERE triggering_event LIKE 'LOGON%';   -- which one sets it back",
        )
    }
}

fn process(look: &Look<'_>) -> Finding {
    let seen = look.ask(POOLING, "v_$session", statement!("doctor_own_session"), &[], |row| {
        let failover = [bind::text(row, "failover_type")?, bind::text(row, "failover_method")?];
        Ok((bind::text(row, "server")?, failover))
    });
    match seen.map(|seen| seen.into_iter().next()) {
        Ok(Some((server, failover))) => judge_process(&server, &failover),
        Ok(None) => POOLING.unknown("not judged: the session does not see itself"),
        Err(finding) => finding,
    }
}

fn judge_process(server: &str, [kind, method]: &[String; 2]) -> Finding {
    const HOW: &str = "(CONNECT_DATA = (SERVER = DEDICATED) (SERVICE_NAME = ...))   # and no FAILOVER_MODE\n\
        srvctl modify service -db DB -service SERVICE -failovertype NONE   # where the service itself asks for it";
    let replays = !matches!(kind.as_str(), "" | "NONE");
    let found = format!("SERVER={server}, FAILOVER_MODE {kind}/{method}");
    match server {
        "DEDICATED" if !replays => POOLING.ok(found),
        "DEDICATED" | "POOLED" => POOLING.fail(found, HOW),
        _ => POOLING.warn(found, HOW),
    }
}

fn judge_character_set(problem: Option<&String>) -> Finding {
    match problem {
        None => CHARACTER_SET.ok("AL32UTF8"),
        Some(problem) => CHARACTER_SET.fail(
            problem.as_str(),
            "CREATE PLUGGABLE DATABASE ...   -- in a container whose character set is AL32UTF8",
        ),
    }
}

fn judge_clock(offset_us: i64) -> Finding {
    const HOW: &str = "timedatectl set-ntp true   # on both machines";
    let size_ms = offset_us.saturating_abs() / 1000;
    let side = if offset_us < 0 { "behind" } else { "ahead of" };
    let found = format!("the database's is {size_ms} ms {side} ours");
    match offset_us.saturating_abs() {
        offset if offset > OFFSET_US_FAILS => CLOCK.fail(found, HOW),
        offset if offset > OFFSET_US_MAX => CLOCK.warn(found, HOW),
        _ => CLOCK.ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;

    #[test]
    fn where_a_session_is_and_how_it_came_there_is_judged() {
        let none = || ["NONE".to_string(), "NONE".to_string()];
        let taf = ["SELECT".to_string(), "BASIC".to_string()];
        let table = [
            (judge_descriptor("x", "db:1521/s"), Verdict::Ok),
            (judge_descriptor("x", "db:1521/s:POOLED"), Verdict::Fail),
            (judge_network(Some("tcps")), Verdict::Ok),
            (judge_network(Some("tcp")), Verdict::Warn),
            (judge_network(None), Verdict::Unknown),
            (judge_zone("+00:00", "+01:00", Some(32)), Verdict::Ok),
            (judge_zone("Europe/Vienna", "+01:00", None), Verdict::Fail),
            (judge_process("DEDICATED", &none()), Verdict::Ok),
            (judge_process("DEDICATED", &taf), Verdict::Fail),
            (judge_process("POOLED", &none()), Verdict::Fail),
            (judge_process("SHARED", &none()), Verdict::Warn),
            (judge_character_set(None), Verdict::Ok),
            (judge_character_set(Some(&"WE8".to_string())), Verdict::Fail),
            (judge_clock(-OFFSET_US_MAX), Verdict::Ok),
            (judge_clock(-OFFSET_US_MAX - 1), Verdict::Warn),
            (judge_clock(OFFSET_US_FAILS + 1), Verdict::Fail),
        ];
        for (finding, wanted) in table {
            assert_eq!(finding.verdict, wanted, "{finding:?}");
            assert_eq!(finding.mend.is_some(), wanted > Verdict::Unknown, "{finding:?}");
        }
    }

    #[test]
    fn an_alias_is_followed_into_tnsnames() {
        let text = "# OTHER = (NO)\nOTHER=(DESCRIPTION=(A=1))\nDB, db2 = \n  (DESCRIPTION = (X = (SERVER = POOLED)))\nEND=(";
        assert_eq!(entry_of(text, "other"), Some("(DESCRIPTION=(A=1))"));
        assert_eq!(entry_of(text, "DB2"), Some("(DESCRIPTION = (X = (SERVER = POOLED)))"));
        assert_eq!(entry_of(text, "END"), None, "it is never closed");
        assert_eq!(entry_of(text, "NONE"), None);
        assert_eq!(judge_descriptor("x", entry_of(text, "DB").unwrap()).verdict, Verdict::Fail);
    }

    #[test]
    fn a_refusal_names_its_own_statement() {
        for (code, wanted) in [
            (1017, "ALTER USER SVC IDENTIFIED BY"),
            (28000, "ALTER USER SVC ACCOUNT UNLOCK"),
            (1045, "GRANT CREATE SESSION TO SVC"),
            (12541, "lsnrctl"),
        ] {
            assert!(way_in(Class::of_ora(code), Some(code), "SVC").starts_with(wanted), "{code}");
        }
        assert!(way_in(Class::Wallet, Some(28759), "SVC").starts_with("orapki"));
    }
}
