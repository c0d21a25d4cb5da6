//! What is shipped to run the service. This module holds the files under `deploy/` against the program: every
//! setting, port, probe, exit code and metric that they name is one that the program has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sentinel::cli::check_config;
use sentinel::config::VARIABLES;
use sentinel::routes::table::ROUTES;

use crate::metrics::NAMES;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_environment_file_names_every_setting() {
    assert_eq!(
        read("deploy/systemd/sentinel.env").trim_end(),
        check_config::template().trim_end(),
        "write it anew: sentinel check-config --template > deploy/systemd/sentinel.env"
    );
}

/// Whether this build knows the setting, by its name, its alias or as the file of a secret.
fn is_setting(name: &str) -> bool {
    VARIABLES.iter().any(|variable| {
        variable.name == name
            || variable.alias == Some(name)
            || variable.file_name().as_deref() == Some(name)
    })
}

#[test]
fn the_manifests_set_what_the_program_reads() {
    let mut settings = BTreeSet::new();
    for line in read("deploy/k8s/base/settings.env").lines().filter(|line| !line.starts_with('#')) {
        settings.extend(line.split_once('=').map(|(name, _)| name.to_owned()));
    }
    for overlay in ["embedded", "oracle"] {
        let text = read(format!("deploy/k8s/overlays/{overlay}/kustomization.yaml"));
        let literals = text.lines().filter_map(|line| line.trim().strip_prefix("- "));
        settings.extend(
            literals.filter_map(|line| line.split_once('=')).map(|(name, _)| name.to_owned()),
        );
    }
    assert!(settings.len() > 5, "{settings:?}");
    for name in settings {
        assert!(is_setting(&name), "the program has no setting {name}");
    }
}

#[test]
fn the_probes_ask_routes_that_are_open() {
    let deployment = read("deploy/k8s/base/deployment.yaml");
    let paths: Vec<&str> = deployment
        .split("path: /")
        .skip(1)
        .map(|rest| rest.split([',', '}']).next().unwrap_or_default())
        .collect();
    assert_eq!(paths, ["health", "health", "ready"]);
    for path in paths {
        let path = format!("/{path}");
        assert!(ROUTES.iter().any(|route| route.path == path && route.is_for_machines()), "{path}");
    }
}

/// The value of a setting of the unit, with which it stands once.
fn unit_value<'a>(unit: &'a str, name: &str) -> &'a str {
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("the unit says nothing of {name}"));
    assert_eq!(values.next(), None, "{name} stands twice");
    value
}

#[test]
fn the_unit_is_patient_with_a_stop_and_restarts_only_what_a_restart_mends() {
    let unit = read("deploy/systemd/sentinel.service");
    let stop = VARIABLES.iter().find(|variable| variable.name == "SENTINEL_SHUTDOWN_TIMEOUT_SEC");
    let stop_s: u32 = stop.unwrap().default.parse().unwrap();
    // The watchdog is not answered during a stop.
    for name in ["WatchdogSec", "TimeoutStopSec"] {
        let value: u32 = unit_value(&unit, name).parse().unwrap();
        assert!(value > stop_s, "{name}={value} is over before a stop of {stop_s} s is");
    }
    let operations = read("docs/operations.md");
    let (_, table) = operations.split_once("| exit code | meaning | restart? |").unwrap();
    let hopeless: Vec<&str> = table
        .lines()
        .filter_map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let is_hopeless = cells.get(3).is_some_and(|restart| restart.starts_with("no"));
            is_hopeless.then(|| cells[1])
        })
        .collect();
    assert_eq!(unit_value(&unit, "RestartPreventExitStatus"), hopeless.join(" "));
    // Debian 12 has systemd 252, which ignores the type notify-reload of 253.
    assert_eq!(unit_value(&unit, "Type"), "notify");
}

/// What the collector of the process itself adds.
const PROCESS: [&str; 1] = ["process_cpu_seconds_total"];

/// The names of metrics in the expressions of `text`. What is written before a brace, a bracket or a blank and has an
/// underscore is a metric, unless it is a recording rule (a colon) or a function of the query language.
fn metrics_in(text: &str) -> BTreeSet<String> {
    const OTHERS: [&str; 2] = ["histogram_quantile", "label_replace"];
    const PREFIXES: [&str; 7] =
        ["gateway_", "processor_", "dlq_", "end_to_end_", "sentinel_", "process_", "slo_"];
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .filter(|word| !word.contains(':') && !OTHERS.contains(word))
        .filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix)))
        .map(|word| {
            let parts = ["_bucket", "_sum", "_count"];
            parts.iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn every_rule_is_about_a_metric_that_is_scraped() {
    for file in ["recording.rules.yml", "alert.rules.yml"] {
        let text = read(format!("deploy/prometheus/{file}"));
        let expressions: String =
            text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        let metrics = metrics_in(&expressions);
        assert!(metrics.len() >= 2, "{file}: {metrics:?}");
        for metric in metrics {
            assert!(NAMES.contains(&metric.as_str()), "{file}: nobody exposes {metric}");
        }
    }
}

#[test]
fn every_panel_shows_a_metric_that_is_scraped_or_a_rule_that_records_it() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/grafana/sentinel.json")).unwrap();
    let rules = read("deploy/prometheus/recording.rules.yml");
    let panels = dashboard["panels"].as_array().unwrap();
    let targets: Vec<&str> = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array())
        .flatten()
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(targets.len() > 20, "{}", targets.len());
    for expression in targets {
        for metric in metrics_in(expression) {
            let shown = NAMES.contains(&metric.as_str()) || PROCESS.contains(&metric.as_str());
            assert!(shown, "{expression}: nobody exposes {metric}");
        }
        let recorded = expression
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
            .filter(|word| word.contains(':'));
        for rule in recorded {
            assert!(rules.contains(&format!("record: {rule},")), "{expression}: no rule {rule}");
        }
    }
}

#[test]
fn every_alert_links_its_runbook_and_every_runbook_has_its_place() {
    let rules = read("deploy/prometheus/alert.rules.yml");
    let alerts = rules.matches("- alert: ").count();
    let links: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("runbook_url: ")).collect();
    assert!(alerts > 0);
    assert_eq!(alerts, links.len(), "an alert without a runbook");
    let index = read("docs/runbooks/README.md");
    for link in links {
        let page = read(link);
        let name = link.rsplit('/').next().unwrap_or_default();
        assert!(index.contains(name), "docs/runbooks/README.md does not list {name}");
        for part in ["## What it means", "## How to look", "## What to do", "## It is over when"] {
            assert!(page.contains(part), "{link} lacks {part:?}");
        }
    }
    for file in std::fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || index.contains(&name), "README.md does not list {name}");
    }
}
