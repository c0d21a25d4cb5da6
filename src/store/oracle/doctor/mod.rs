//! What is wrong with an Oracle database as the user of the service sees it. This module asks for each fact by itself,
//! so that one that cannot be had hides no other, and judges them in pure code. Nothing is changed.
//!
//! The service's user sees little of the dictionary, and should. A fact that it may not see is told as not judged, with
//! the grant that would show it; whoever does not want to give that asks as a DBA instead.

mod account;
mod grants;
mod place;
mod queue;
mod schema;
mod space;
mod wallet;
mod work;

use oracle::{Connection, Row};

use super::bind::{self, Bind};
use super::database::{self, Database};
use super::sql::text;
use super::{Settings, errors, facts};
use crate::domain::time::Timestamp;
use crate::store::doctor::{Check, Finding};

const CLIENT: Check = Check::new("client", "without Oracle's client library there is no session");

/// Looks at everything.
pub fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![place::descriptor(&settings.address)];
    findings.extend(wallet::examine(&settings.address, (settings.clock)()));
    match database::load_client(&settings.address) {
        Ok(version) => findings.push(CLIENT.ok(format!("version {version}"))),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            findings.push(CLIENT.fail(
                cause.unwrap_or_else(|| error.to_string()),
                "echo /opt/oracle/instantclient > /etc/ld.so.conf.d/oracle.conf && ldconfig",
            ));
            return findings;
        }
    }
    let schema = settings.schema.clone();
    let database = Database::new(settings.address.clone(), settings.care.clone(), schema);
    let connection = match database::open(&database, "doctor") {
        Ok(connection) => connection,
        Err(error) => {
            findings.push(place::judge_refusal(&settings.address, &error));
            return findings;
        }
    };
    let version = database.version.lock().clone().unwrap_or_default();
    let place = place::of(&connection);
    let look = Look {
        connection: &connection,
        settings,
        user: place.as_ref().map_or_else(|_| SERVICE.to_string(), |place| place.user.clone()),
        owner: owner(settings, place.as_ref().ok()),
    };
    findings.extend(place::examine(&look, place, &version));
    findings.extend(account::examine(&look));
    findings.extend(grants::examine(&look));
    findings.extend(schema::examine(&look));
    findings.extend(queue::examine(&look));
    findings.extend(space::examine(&look));
    findings.extend(work::examine(&look));
    if let Err(error) = connection.close() {
        log::debug!("closing the session: {error}");
    }
    findings
}

/// The service's user, where the session does not tell.
const SERVICE: &str = "SENTINEL_SVC";

/// Who holds the tables.
fn owner(settings: &Settings, place: Option<&place::Place>) -> String {
    match (settings.schema.is_empty(), place) {
        (true, Some(place)) => place.schema.clone(),
        _ => settings.schema.to_ascii_uppercase(),
    }
}

/// A look at one database.
struct Look<'l> {
    connection: &'l Connection,
    settings: &'l Settings,
    /// Who is logged in, and who holds the tables; in capitals.
    user: String,
    owner: String,
}

impl Look<'_> {
    /// Asks a statement's file, or says why what `check` wants cannot be judged. `view` is what has to be granted for
    /// it; empty: everybody may ask.
    fn ask<T>(
        &self,
        check: Check,
        view: &str,
        file: &str,
        binds: &[Bind<'_>],
        of: impl FnMut(&Row) -> oracle::Result<T>,
    ) -> Result<Vec<T>, Finding> {
        bind::query(self.connection, &text(file, &[]), binds, ROWS, of)
            .map_err(|error| self.unseen(check, view, &error.to_string()))
    }

    /// What cannot be seen, and what would show it.
    fn unseen(&self, check: Check, view: &str, words: &str) -> Finding {
        match errors::ora_in_text(words) {
            Some(942 | 1031) if !view.is_empty() => {
                let (name, user) = (view.to_ascii_uppercase(), &self.user);
                check
                    .unknown(format!("not judged: needs SELECT on {name} (optional)"))
                    .with(format!("GRANT SELECT ON sys.{view} TO {user};   -- as a DBA"))
            }
            _ => unseen(check, words),
        }
    }

    /// The clock of the database.
    fn now(&self) -> Timestamp {
        facts::now(self.connection).unwrap_or_else(|_| (self.settings.clock)())
    }
}

/// Rows of one fetch.
const ROWS: usize = 200;

fn unseen(check: Check, words: &str) -> Finding {
    check.unknown(format!("not judged: {}", errors::clean(words)))
}
