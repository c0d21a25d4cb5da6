//! The whole service with an Oracle address, on the stand-in: what users are promised holds there too. This module
//! starts one database, an issuer of tokens, and as many instances of the service as a test asks for.

mod delivery;
mod faults;
mod figures;
mod following;
mod heartbeat;
mod logs;
mod plsql_callers;
mod shutdown;
mod tenancy;
mod traces;
mod trips;

use std::sync::Arc;
use std::time::Duration;

use sentinel::service::{Clock, Parts};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Client, InChild, InProcess, eventually};
use crate::issuer::Issuer;
use crate::oracle_migrate;
use crate::oracle_standin::Standin;

/// One database with the schema in it, and what instances have in common.
struct Site {
    standin: Arc<Standin>,
    issuer: Issuer,
    folder: TempDir,
}

impl Site {
    /// None only where PostgreSQL is missing and nobody insists on it.
    fn start() -> Option<Self> {
        let standin = Arc::new(oracle_migrate::migrated()?);
        let folder = tempfile::tempdir().expect("a folder");
        Some(Self { standin, issuer: Issuer::start(), folder })
    }

    fn settings(&self) -> Vec<(String, String)> {
        [
            ("SENTINEL_DATABASE", format!("oracle://{}", self.standin.connect_string)),
            ("ORACLE_CLIENT_LIB_DIR", self.standin.library.display().to_string()),
            ("ORACLE_USERNAME", "SENTINEL".to_owned()),
            ("ORACLE_PASSWORD", "any".to_owned()),
            ("OAUTH2_ISSUER_URI", self.issuer.uri()),
            ("OAUTH2_JWK_SET_URI", self.issuer.jwk_set_uri()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// An instance in a process of its own, with further settings, once it is ready.
    fn instance(&self, more: &[(&str, &str)]) -> InChild {
        let settings = self.settings();
        let mut variables: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        variables.extend(more);
        let instance = InChild::start(self.folder.path(), &variables);
        self.wait_until_ready(&mut Client::new(instance.api, ""), || instance.log());
        instance
    }

    /// An instance in this process, with the parts that are named, once it is ready.
    fn in_process(&self, clock: Clock, parts: Parts, more: &[(&str, &str)]) -> InProcess {
        let settings = self.settings();
        let mut variables: Vec<(&str, &str)> =
            settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        variables.extend(more);
        let service = InProcess::start(self.folder.path(), clock, parts, &variables);
        self.wait_until_ready(&mut Client::new(service.service.api_address(), ""), String::new);
        service
    }

    fn wait_until_ready(&self, client: &mut Client, log: impl Fn() -> String) {
        let begun = std::time::Instant::now();
        eventually("the instance is ready", || {
            let answer = client.get("/ready");
            assert!(begun.elapsed() < READY, "not ready: {}\n{}", answer.text(), log());
            let checks = answer.json()["checks"].as_array().cloned().unwrap_or_default();
            // The keys of the issuer come a moment after the ports.
            let keys = checks
                .iter()
                .any(|check| check["name"] == "identity.keys" && check["state"] == "ok");
            (answer.status == 200 && keys).then_some(())
        });
    }

    fn client(&self, instance: &InChild, tenant: &str) -> Client {
        self.client_at(instance.api, tenant)
    }

    fn client_at(&self, address: std::net::SocketAddr, tenant: &str) -> Client {
        Client::new(address, &self.issuer.token(json!({"tenant_id": tenant})))
    }
}

/// Stops an instance and holds that it ended well and met nothing on its way that it could not handle.
fn end(instance: InChild) {
    instance.signal_term();
    ended(instance);
}

/// The same for one that was told to stop; what it has said.
fn ended(instance: InChild) -> String {
    let (code, log) = instance.end();
    assert_eq!(code, 0, "{log}");
    let wrong: Vec<&str> = log.lines().filter(|line| is_unhandled(line)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    log
}

/// Whether a line of the log tells of something that nobody has taken care of. A transaction that is run again after a
/// deadlock is no news, or a line that says so; a caller who is turned away for one is.
fn is_unhandled(line: &str) -> bool {
    let record: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
    let is_error = record["level"].as_str().is_none_or(|level| level.eq_ignore_ascii_case("error"));
    let tells_of = |words: &[&str]| words.iter().any(|word| line.contains(word));
    is_error
        || tells_of(&["was not accepted", "panic"])
        || tells_of(&["ORA-00060", "deadlock", "40001", "40P01"])
            && !tells_of(&["put off", "again"])
}

/// An instance is ready sooner, or something hangs.
const READY: Duration = Duration::from_secs(30);
