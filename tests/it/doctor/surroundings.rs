//! What the service stands on beside its store, as the doctor sees it. This module turns it bad: the configuration, the
//! identity provider, the collector, the ports, certificates, the clock.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::provider::Provider;
use super::{Report, doctor};
use crate::collector::{Collector, Manner};

/// A doctor on an embedded store that is not there yet.
fn doctor_with(folder: &std::path::Path, variables: &[(&str, &str)]) -> Report {
    let report = doctor(&format!("sqlite://{}", folder.join("data").display()), variables);
    report.is_complete();
    report
}

#[test]
fn every_problem_and_warning_of_the_configuration_is_a_finding() {
    let folder = tempfile::tempdir().unwrap();
    let report = doctor_with(
        folder.path(),
        &[("SENTINEL_HTTP_PORT", "eighty"), ("SENTINEL_HTTP_LOOPS", "0")],
    );
    assert_eq!(report.code, Some(78));
    assert_eq!(report.all("fail"), ["configuration", "configuration"]);
    let report = doctor_with(folder.path(), &[("SENTINEL_LISTENER_THREADS", "3")]);
    assert_eq!((report.code, report.verdict("configuration")), (Some(1), "warn"));
}

#[test]
fn the_keys_of_the_identity_provider_are_fetched_as_the_service_does() {
    let folder = tempfile::tempdir().unwrap();
    let provider = Provider::start(2);
    let issuer = provider.issuer.clone();
    let ask = |issuer: &str| {
        doctor_with(
            folder.path(),
            &[("OAUTH2_ISSUER_URI", issuer), ("SENTINEL_LISTEN_ADDRESS", "127.0.0.1")],
        )
    };
    let report = ask(&issuer);
    assert_eq!(report.verdict("identity provider"), "ok", "{:#?}", report.findings);
    assert!(report.found("identity provider").contains("2 keys"));
    let report = ask(&format!("{issuer}/other"));
    assert_eq!(
        (report.code, report.verdict("identity provider")),
        (Some(69), "fail"),
        "not its issuer"
    );
    assert!(report.found("identity provider").contains("letter by letter"));
    drop(provider);
    let report = ask(&issuer);
    assert_eq!(report.verdict("identity provider"), "fail");
    assert!(report.mend("identity provider").contains(".well-known/openid-configuration"));
    let empty = Provider::start(0);
    assert!(ask(&empty.issuer).found("identity provider").contains("no key"));
}

#[test]
fn the_collector_of_traces_is_asked_without_sending_a_span() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |collector: &Collector| {
        let endpoint = format!("http://{}", collector.address);
        doctor_with(folder.path(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)])
    };
    let takes = Collector::start(Manner::Takes);
    assert_eq!(ask(&takes).verdict("trace collector"), "ok");
    assert!(takes.taken.lock().spans.is_empty());
    let refuses = ask(&Collector::start(Manner::Refuses(401)));
    assert_eq!((refuses.code, refuses.verdict("trace collector")), (Some(1), "warn"));
    assert!(refuses.mend("trace collector").contains("OTEL_EXPORTER_OTLP_HEADERS"));
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{gone}");
    let report = doctor_with(folder.path(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    assert_eq!(report.verdict("trace collector"), "warn");
}

#[test]
fn a_port_that_another_program_holds_is_told() {
    let folder = tempfile::tempdir().unwrap();
    // It takes connections and never answers.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    for (variable, check) in
        [("SENTINEL_HTTP_PORT", "API port"), ("PROMETHEUS_METRICS_PORT", "metrics port")]
    {
        let report = doctor_with(folder.path(), &[(variable, &port)]);
        assert_eq!(
            (report.code, report.verdict(check)),
            (Some(69), "fail"),
            "{:#?}",
            report.findings
        );
        assert_eq!(report.mend(check), format!("ss -ltnp 'sport = :{port}'"));
    }
}

#[test]
fn a_certificate_is_told_before_it_ends_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let provider = Provider::start(1);
    let made = |days: i64| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let end = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        let end = end.to_zoned(jiff::tz::TimeZone::UTC);
        params.not_after = rcgen::date_time_ymd(
            i32::from(end.year()),
            u8::try_from(end.month()).unwrap(),
            u8::try_from(end.day()).unwrap(),
        );
        fs::write(path("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        doctor_with(
            folder.path(),
            &[
                ("OAUTH2_ISSUER_URI", &provider.issuer),
                ("SENTINEL_LISTEN_ADDRESS", "127.0.0.1"),
                ("SENTINEL_TLS_CERT_FILE", &path("cert.pem")),
                ("SENTINEL_TLS_KEY_FILE", &path("key.pem")),
            ],
        )
    };
    assert_eq!(made(90).verdict("certificate"), "ok");
    let soon = made(5);
    assert_eq!(soon.verdict("certificate"), "warn", "{:#?}", soon.findings);
    let ended = made(-2);
    assert_eq!(
        (ended.code, ended.verdict("certificate")),
        (Some(69), "fail"),
        "{:#?}",
        ended.findings
    );
}

#[test]
fn a_clock_before_the_programs_own_date_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("sentinel");
    fs::copy(env!("CARGO_BIN_EXE_sentinel"), &program).unwrap();
    let verdict = |installed: SystemTime| {
        let file = fs::File::options().write(true).open(&program).unwrap();
        file.set_modified(installed).unwrap();
        drop(file);
        let database = format!("sqlite://{}", folder.path().join("data").display());
        let output = Command::new(&program)
            .args(["--database", &database, "doctor"])
            .env_clear()
            .output()
            .unwrap();
        let words = String::from_utf8(output.stdout).unwrap();
        let line = words.lines().find(|line| line.contains("  wall clock")).unwrap().to_owned();
        line[..4].trim().to_owned()
    };
    let now = SystemTime::now();
    assert_eq!(verdict(now - Duration::from_secs(60)), "OK");
    assert_eq!(verdict(now + Duration::from_secs(400 * 24 * 3600)), "FAIL");
}
