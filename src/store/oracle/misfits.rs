//! What would break the service, in words that say what to do. This module looks at a database and at the sessions that
//! an address leads to.

use oracle::Connection;

use super::bind::{self, Bind};
use super::errors::{self, Class};
use super::sql::{statement, text};

/// What the character set of the database must be: any other loses characters without telling.
const CHARACTER_SET: &str = "AL32UTF8";

/// What of the database would break the service.
pub(super) fn of_database(connection: &Connection) -> oracle::Result<Vec<String>> {
    let sets = bind::query(connection, &text(statement!("character_set"), &[]), &[], 1, |row| {
        bind::text(row, "value")
    })?;
    let mut problems = Vec::new();
    if let Some(set) = sets.into_iter().next()
        && set != CHARACTER_SET
    {
        problems.push(format!(
            "the character set of the database is {set}, which loses characters; this service needs {CHARACTER_SET}"
        ));
    }
    Ok(problems)
}

/// What kind of session an alias has led to, where that would break the service: in a descriptor it can be read
/// ([`super::address::unfit`]), behind an alias only the session itself knows.
pub(super) fn of_session(connection: &Connection) -> oracle::Result<Vec<String>> {
    let asked = bind::call_for_rows(
        connection,
        &text(statement!("session_kind"), &[]),
        &[Bind::Cursor],
        |row| Ok((bind::text(row, "SERVER")?, bind::text(row, "FAILOVER_TYPE")?)),
    );
    match asked {
        Ok(kinds) => {
            Ok(kinds.iter().flat_map(|(server, failover)| of_kind(server, failover)).collect())
        }
        // An older schema, or the owner has no right to look.
        Err(error) if errors::class_of(&error) == Class::Missing => {
            let words = errors::clean(&error.to_string());
            log::warn!(
                "nobody can say what kind of sessions these are, see 000_grants_as_dba.sql: {words}"
            );
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

fn of_kind(server: &str, failover: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if server == "POOLED" {
        problems.push(
            "the sessions come from a pool of the database (SERVER=POOLED), which others have used before; name a \
             dedicated server in tnsnames.ora"
                .to_string(),
        );
    }
    if !matches!(failover, "NONE" | "") {
        problems.push(format!(
            "the sessions are failed over behind our back (failover type {failover}), without what they were told at \
             their start; remove FAILOVER_MODE from tnsnames.ora and failover_type from the database service"
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_alias_hides_is_named() {
        assert_eq!(of_kind("DEDICATED", "NONE"), [""; 0]);
        assert_eq!(of_kind("SHARED", ""), [""; 0]);
        assert!(of_kind("POOLED", "NONE")[0].contains("SERVER=POOLED"));
        for failover in ["SESSION", "SELECT", "TRANSACTION", "AUTO"] {
            assert!(of_kind("DEDICATED", failover)[0].contains(failover));
        }
        assert_eq!(of_kind("POOLED", "SELECT").len(), 2);
    }
}
