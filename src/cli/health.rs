//! `sentinel health` asks the service how it is. This module answers a container's probe: 0 when it is well, 1 with
//! words when not.

use std::time::Duration;

use super::client::Client;
use super::exit::{Code, Exit};
use super::words;
use crate::config::Overrides;

/// Long enough for a service that is busy, and shorter than Docker waits for a probe (30 s).
const PATIENCE: Duration = Duration::from_secs(5);

/// Ask the service how it is: exit code 0 when it is well, else 1
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sentinel health
  sentinel health --ready
  sentinel health --url https://sentinel.example:8090

In a container: HEALTHCHECK CMD [\"sentinel\", \"health\"]. SENTINEL_URL and SENTINEL_CA_FILE apply; no token is needed.")]
pub struct HealthArgs {
    #[arg(long, value_name = "URL", help = "Where the service is, instead of SENTINEL_URL")]
    url: Option<String>,
    /// Ask whether it can do its work (/ready), not only whether it runs (/health)
    #[arg(long)]
    ready: bool,
}

/// Asks once.
///
/// # Errors
/// When there is no answer, or none that says it is well.
pub fn run(args: &HealthArgs, overrides: Overrides) -> anyhow::Result<()> {
    let mut client = Client::for_probes(overrides, args.url.as_deref())?;
    let path = if args.ready { "/ready" } else { "/health" };
    let answer = client.get(path, PATIENCE)?;
    if answer.status != 200 {
        // What /ready says about each dependency is the very thing to know.
        let body: Vec<String> = answer.body.lines().map(words::escaped).collect();
        let words = format!("{}\n{}", answer.words(), body.join("\n"));
        return Err(Exit::new(Code::Failed, words.trim_end()).into());
    }
    let lame = if args.ready { lame(&answer.body) } else { Vec::new() };
    let word = if lame.is_empty() { "is well" } else { "does its work, degraded" };
    super::print(&format!("{} {word}", client.url()))?;
    for line in lame {
        super::print(&words::escaped(&line))?;
    }
    Ok(())
}

/// What `/ready` says of itself.
#[derive(serde::Deserialize)]
struct Readiness {
    #[serde(default)]
    checks: Vec<Check>,
}

#[derive(serde::Deserialize)]
struct Check {
    name: String,
    state: String,
    #[serde(default)]
    detail: String,
}

/// The lines of `/ready` that are not as they should be.
fn lame(body: &str) -> Vec<String> {
    let said: Option<Readiness> = serde_json::from_str(body).ok();
    let checks = said.map(|said| said.checks).unwrap_or_default();
    let lame = checks.into_iter().filter(|check| check.state != "ok");
    lame.map(|check| format!("{} {}: {}", check.name, check.state, check.detail)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_works_and_is_not_well_is_named() {
        let body = r#"{"status":"degraded","checks":[{"name":"service","state":"ok","detail":"running"},
            {"name":"store.write","state":"degraded","detail":"log rows are not taken"}]}"#;
        assert_eq!(lame(body), ["store.write degraded: log rows are not taken"]);
        assert!(lame("{}").is_empty() && lame("no JSON").is_empty());
    }
}
