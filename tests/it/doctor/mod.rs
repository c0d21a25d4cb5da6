//! `sentinel doctor`: what it finds, and what it says mends it. This module runs the program beside services and stores
//! that are well, and on ones in which one thing is broken at a time.

mod embedded;
mod oracle;
mod provider;
mod surroundings;

use std::process::Command;

use serde_json::Value;

/// What one run came to.
struct Report {
    code: Option<i32>,
    findings: Vec<Value>,
}

/// Runs the doctor of the store at `database` with these variables.
fn doctor(database: &str, variables: &[(&str, &str)]) -> Report {
    let output = Command::new(env!("CARGO_BIN_EXE_sentinel"))
        .args(["--database", database, "doctor", "--json"])
        .env_clear()
        .env("SENTINEL_MAX_CONNECTIONS", "100")
        .env("SENTINEL_MIN_FREE_BYTES", "0")
        // Whoever has the usual ports of this machine is none of our business.
        .env("SENTINEL_HTTP_PORT", "0")
        .env("PROMETHEUS_METRICS_PORT", "0")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let findings = serde_json::from_slice(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    Report {
        code: output.status.code(),
        findings: findings.unwrap_or_else(|error| panic!("{error}: {words}")),
    }
}

impl Report {
    /// The worst finding of a check.
    fn of(&self, check: &str) -> &Value {
        let order = ["ok", "unknown", "warn", "fail"];
        let of_check = self.findings.iter().filter(|finding| finding["check"] == check);
        let worst = of_check.max_by_key(|finding| {
            order
                .iter()
                .position(|verdict| finding["verdict"] == *verdict)
                .expect("a known verdict")
        });
        worst.unwrap_or_else(|| panic!("{check} in {:#?}", self.findings))
    }

    fn verdict(&self, check: &str) -> &str {
        self.of(check)["verdict"].as_str().unwrap()
    }

    fn found(&self, check: &str) -> &str {
        self.of(check)["found"].as_str().unwrap()
    }

    /// The statement that mends it.
    fn mend(&self, check: &str) -> &str {
        self.of(check)["mend"].as_str().unwrap_or_default()
    }

    /// The names of the checks that came out as `verdict`.
    fn all(&self, verdict: &str) -> Vec<&str> {
        let such = self.findings.iter().filter(|finding| finding["verdict"] == verdict);
        such.map(|finding| finding["check"].as_str().unwrap()).collect()
    }

    /// Every finding says why it matters, and whatever is wrong says how it is mended.
    fn is_complete(&self) {
        for finding in &self.findings {
            assert!(finding["why"].as_str().is_some_and(|why| why.len() > 10), "{finding}");
            let wrong = ["warn", "fail"].iter().any(|verdict| finding["verdict"] == *verdict);
            assert!(
                !wrong || finding["mend"].as_str().is_some_and(|mend| !mend.is_empty()),
                "{finding}"
            );
        }
    }
}
