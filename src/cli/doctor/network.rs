//! Whom the service calls and who calls it: the identity provider, the collector of traces, its own ports. This module
//! calls each once, the way the service does, and says what came of it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::config::{Config, Mode, Traces};
use crate::http::auth;
use crate::store::doctor::{Check, Finding};

const PROVIDER: Check = Check::new(
    "identity provider",
    "without its keys no token can be verified, and every request is answered 503",
);
const COLLECTOR: Check =
    Check::new("trace collector", "spans that it does not take are dropped; nothing else suffers");
const API: Check = Check::new("API port", "it is where everybody comes in");
const METRICS: Check =
    Check::new("metrics port", "without metrics no alert fires, whatever happens to the service");

/// For one call, whole.
const WITHIN: Duration = Duration::from_secs(5);
/// A connection on this machine takes less.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The beginning of an answer that is looked at.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![provider(config)];
    findings
        .push(config.traces.as_ref().map_or_else(|| COLLECTOR.ok("no traces are sent"), collector));
    findings.extend(ports(config));
    findings
}

fn provider(config: &Config) -> Finding {
    let Mode::Provider(provider) = &config.mode else {
        return PROVIDER.ok("none: development mode, with a key of its own on loopback");
    };
    let issuer = provider.issuer.as_str();
    match auth::usable_keys(provider) {
        Ok(1) => PROVIDER.ok(format!("{issuer} has 1 key that can be used")),
        Ok(count) => PROVIDER.ok(format!("{issuer} has {count} keys that can be used")),
        Err(error) => PROVIDER.fail(
            format!("{error:#}"),
            match &provider.ca_file {
                Some(path) => {
                    format!("curl -v --cacert '{}' '{}'", path.display(), well_known(issuer))
                }
                None => format!(
                    "curl -v '{}'   # a private authority goes into OAUTH2_CA_FILE",
                    well_known(issuer)
                ),
            },
        ),
    }
}

fn well_known(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}

/// Posts no span at all, which a collector takes like any other batch.
fn collector(traces: &Traces) -> Finding {
    let address = traces.endpoint.as_str();
    match post_nothing(traces) {
        Ok(status) => judge_collector(address, status),
        Err(error) => COLLECTOR
            .warn(format!("{address} does not answer: {error:#}"), format!("curl -v '{address}'")),
    }
}

fn post_nothing(traces: &Traces) -> anyhow::Result<u16> {
    let config = ureq::Agent::config_builder()
        .tls_config(auth::tls(traces.ca_file.as_deref(), None)?)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(WITHIN));
    let agent = config.build().new_agent();
    let mut request =
        agent.post(traces.endpoint.as_str()).header("content-type", "application/x-protobuf");
    for (name, value) in &traces.headers {
        request = request.header(name, value);
    }
    let request = request.config();
    let request = if traces.endpoint.is_loopback() { request.proxy(None) } else { request };
    Ok(request.build().send(&[][..])?.status().as_u16())
}

fn judge_collector(address: &str, status: u16) -> Finding {
    let found = format!("{address} answers {status}");
    match status {
        200..=299 => COLLECTOR.ok(found),
        401 | 403 => COLLECTOR.warn(found, "export OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer ...'"),
        404 | 405 => COLLECTOR.warn(
            found,
            "export OTEL_EXPORTER_OTLP_ENDPOINT=https://collector.example.com:4318   # OTLP over HTTP, without a path",
        ),
        _ => COLLECTOR.warn(found, format!("curl -v -X POST -H 'content-type: application/x-protobuf' '{address}'")),
    }
}

/// What is behind one of our ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    Nobody,
    Us,
    Somebody,
}

fn ports(config: &Config) -> Vec<Finding> {
    let api = behind(config.listen, config.tls.api.is_some(), "/health", "\"status\"");
    let mut findings = vec![judge_api(config.listen, api)];
    findings.push(match config.metrics {
        None => METRICS.ok("off; /metrics is on the API port"),
        Some(address) => {
            let found = behind(address, config.tls.metrics.is_some(), "/metrics", "sentinel_");
            judge_metrics(address, api, found)
        }
    });
    findings
}

/// Who answers at `address`. Behind TLS only that somebody does is seen.
fn behind(address: SocketAddr, tls: bool, path: &str, mark: &str) -> Behind {
    // An address that stands for all cannot be called.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let Ok(mut stream) =
        TcpStream::connect_timeout(&SocketAddr::new(ip, address.port()), CONNECT_WITHIN)
    else {
        return Behind::Nobody;
    };
    if tls {
        return Behind::Us;
    }
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let asked = stream
        .set_read_timeout(Some(CONNECT_WITHIN))
        .and_then(|()| stream.write_all(request.as_bytes()))
        .and_then(|()| stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer));
    let is_ours = asked.is_ok() && String::from_utf8_lossy(&answer).contains(mark);
    if is_ours { Behind::Us } else { Behind::Somebody }
}

fn judge_api(address: SocketAddr, behind: Behind) -> Finding {
    match behind {
        _ if address.port() == 0 => API.unknown("any free one: the log of the service says which"),
        Behind::Us => API.ok(format!("{address}: a service answers")),
        Behind::Nobody => {
            API.unknown(format!("{address}: nobody answers, so no service runs here"))
        }
        Behind::Somebody => API.fail(
            format!("{address}: another program has it"),
            format!("ss -ltnp 'sport = :{}'", address.port()),
        ),
    }
}

fn judge_metrics(address: SocketAddr, api: Behind, behind: Behind) -> Finding {
    let who = format!("ss -ltnp 'sport = :{}'", address.port());
    match (api, behind) {
        (_, Behind::Us) => METRICS.ok(format!("{address}: metrics are served")),
        (_, Behind::Somebody) => METRICS.fail(format!("{address}: another program has it"), who),
        (Behind::Us, Behind::Nobody) => METRICS.warn(
            format!("{address}: nobody answers, although the service does"),
            "sentinel check-config | grep METRICS   # is the service's PROMETHEUS_METRICS_PORT another one?",
        ),
        (Behind::Nobody | Behind::Somebody, Behind::Nobody) => {
            METRICS.unknown(format!("{address}: nobody answers, as no service runs here"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::doctor::Verdict;

    #[test]
    fn ports_are_judged_by_who_answers() {
        let at: SocketAddr = "127.0.0.1:8090".parse().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (nobody, us, somebody) = (Behind::Nobody, Behind::Us, Behind::Somebody);
        let table = [
            (judge_api(at, us), Verdict::Ok),
            (judge_api(at, nobody), Verdict::Unknown),
            (judge_api(at, somebody), Verdict::Fail),
            (judge_api(any, somebody), Verdict::Unknown),
            (judge_metrics(at, us, us), Verdict::Ok),
            (judge_metrics(at, us, nobody), Verdict::Warn),
            (judge_metrics(at, nobody, nobody), Verdict::Unknown),
            (judge_metrics(at, nobody, somebody), Verdict::Fail),
            (judge_collector("x", 200), Verdict::Ok),
            (judge_collector("x", 401), Verdict::Warn),
            (judge_collector("x", 404), Verdict::Warn),
            (judge_collector("x", 503), Verdict::Warn),
        ];
        for (finding, wanted) in table {
            assert_eq!(finding.verdict, wanted, "{finding:?}");
            assert_eq!(finding.mend.is_some(), wanted > Verdict::Unknown, "{finding:?}");
        }
    }
}
