//! Where traces go and which of them are recorded. This module reads the standard `OTEL_*` variables
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
//!
//! Without an endpoint there are no traces. A value that the standard would ignore with a warning is a problem here,
//! like that of any other setting. `OTEL_EXPORTER_OTLP_TRACES_…` is a second name of `OTEL_EXPORTER_OTLP_…`, since
//! traces are all that is sent; only the endpoint differs, because one of the two is taken whole.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::{HeaderName, HeaderValue};

use super::mode::{check_certificates, refusal};
use super::problems::Warning;
use super::raw::Surroundings;
use super::reader::Reader;
use super::variables::NONE;
use super::web_address::WebAddress;

/// What the standard adds to the endpoint of all signals to make that of traces.
const TRACES_PATH: &str = "/v1/traces";
/// Where collectors take gRPC, which this service does not speak.
const GRPC_PORT: u16 = 4317;
const MS_MAX: u64 = 600_000;

/// Where traces go and which of them are recorded.
#[derive(Clone, PartialEq)]
pub struct Traces {
    /// The whole address that spans are posted to.
    pub endpoint: WebAddress,
    /// Fields that are sent along. They may hold secrets.
    pub headers: Vec<(String, String)>,
    /// For one batch of spans, whole.
    pub timeout: Duration,
    pub ca_file: Option<PathBuf>,
    pub service_name: String,
    /// It was set, and goes before one among the attributes.
    pub service_name_is_given: bool,
    pub resource: Vec<(String, String)>,
    pub sampling: Sampling,
    /// Spans that may wait.
    pub queue_spans_max: usize,
    pub batch_spans_max: usize,
    /// How long a span waits for a batch to fill.
    pub batch_wait: Duration,
}

/// Which traces are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Do as the caller's `traceparent` says, where there is one.
    pub parent_based: bool,
    pub root: RootSampler,
}

/// Which traces are recorded where no caller decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RootSampler {
    AlwaysOn,
    AlwaysOff,
    /// This share of them, the same ones in every service.
    TraceIdRatio(f64),
}

impl fmt::Debug for Traces {
    /// Never the header fields.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces")
            .field("endpoint", &self.endpoint)
            .field("sampling", &self.sampling)
            .finish_non_exhaustive()
    }
}

/// What the variables come to. None: there are no traces.
pub(super) fn traces(
    reader: &mut Reader<'_>,
    surroundings: &Surroundings<'_>,
    warnings: &mut Vec<Warning>,
) -> Option<Traces> {
    let endpoint = endpoint(reader, warnings);
    let headers = headers(reader);
    let timeout = milliseconds(reader, "OTEL_EXPORTER_OTLP_TIMEOUT")
        .min(milliseconds(reader, "OTEL_BSP_EXPORT_TIMEOUT"));
    let ca_file = reader.text("OTEL_EXPORTER_OTLP_CERTIFICATE", "system roots").map(PathBuf::from);
    reader.word("OTEL_EXPORTER_OTLP_COMPRESSION", "none", &[("none", ())]);
    reader.word("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", &[("http/protobuf", ())]);
    let service_name = reader.text_or_default("OTEL_SERVICE_NAME");
    let resource = resource(reader);
    let sampling = sampling(reader);
    let batch_wait = milliseconds(reader, "OTEL_BSP_SCHEDULE_DELAY");
    let queue_spans_max = reader.count("OTEL_BSP_MAX_QUEUE_SIZE", 1..=1_000_000);
    let batch_spans_max = reader.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1..=100_000);
    let disabled = reader.text_or_default("OTEL_SDK_DISABLED");
    if !["true", "false"].iter().any(|word| disabled.eq_ignore_ascii_case(word)) {
        reader.problem("OTEL_SDK_DISABLED", format!("{disabled:?} is not `true` or `false`"));
    }
    if disabled.eq_ignore_ascii_case("true") {
        return None;
    }
    let endpoint = endpoint?;
    if let Some(path) = &ca_file {
        check_certificates(reader, "OTEL_EXPORTER_OTLP_CERTIFICATE", path, surroundings);
    }
    Some(Traces {
        endpoint,
        headers,
        timeout,
        ca_file,
        service_name,
        service_name_is_given: reader.is_given("OTEL_SERVICE_NAME"),
        resource,
        sampling,
        queue_spans_max,
        batch_spans_max: batch_spans_max.min(queue_spans_max),
        batch_wait,
    })
}

fn endpoint(reader: &mut Reader<'_>, warnings: &mut Vec<Warning>) -> Option<WebAddress> {
    const ALL: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const OF_TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let all = reader.text(ALL, "off");
    let of_traces = reader.text(OF_TRACES, "off");
    let (name, text) = match (all, of_traces) {
        (_, Some(text)) => (OF_TRACES, text),
        (Some(text), None) if text.contains('?') => {
            reader.problem(ALL, format!("must not hold a query, since {TRACES_PATH} is added"));
            return None;
        }
        (Some(text), None) => (ALL, format!("{}{TRACES_PATH}", text.trim_end_matches('/'))),
        (None, None) => return None,
    };
    match WebAddress::parse(&text) {
        Ok(address) => {
            if port(&text) == Some(GRPC_PORT) {
                let what = format!(
                    "{GRPC_PORT} is the port where collectors take gRPC; traces are sent as OTLP over HTTP, \
                     which is port 4318"
                );
                warnings.push(Warning { name: name.to_string(), what });
            }
            Some(address)
        }
        Err(error) => {
            reader.problem(name, refusal(&text, error));
            None
        }
    }
}

fn port(address: &str) -> Option<u16> {
    address.parse::<ureq::http::Uri>().ok()?.port_u16()
}

fn milliseconds(reader: &mut Reader<'_>, name: &'static str) -> Duration {
    Duration::from_millis(reader.number(name, 1..=MS_MAX))
}

/// `name=value` pairs, separated by commas. None: it is not such a list.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=')?;
            let (name, value) = (name.trim(), value.trim());
            (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
        })
        .collect()
}

fn headers(reader: &mut Reader<'_>) -> Vec<(String, String)> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_HEADERS";
    let Some(text) = reader.text(NAME, NONE) else { return Vec::new() };
    let headers = pairs(&text).and_then(|pairs| {
        let decoded = pairs.into_iter().map(|(name, value)| Some((name, percent_decoded(&value)?)));
        decoded.collect::<Option<Vec<_>>>()
    });
    let valid = headers.filter(|headers| {
        headers.iter().all(|(name, value)| {
            HeaderName::try_from(name.as_str()).is_ok() && HeaderValue::try_from(value).is_ok()
        })
    });
    valid.unwrap_or_else(|| {
        // The text holds secrets, so it is not repeated.
        reader.problem(NAME, "is not name=value pairs of header fields, separated by commas");
        Vec::new()
    })
}

fn resource(reader: &mut Reader<'_>) -> Vec<(String, String)> {
    const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let Some(text) = reader.text(NAME, NONE) else { return Vec::new() };
    let decoded = pairs(&text).and_then(|pairs| {
        pairs.into_iter().map(|(name, value)| Some((name, percent_decoded(&value)?))).collect()
    });
    decoded.unwrap_or_else(|| {
        reader.problem(NAME, format!("{text:?} is not name=value pairs, separated by commas"));
        Vec::new()
    })
}

/// Text in which a percent sign and two hexadecimal digits stand for a byte. None: what comes out is not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = match after {
            [high, low, ..] if *first == b'%' && high.is_ascii_hexdigit() => {
                std::str::from_utf8(&[*high, *low])
                    .ok()
                    .and_then(|d| u8::from_str_radix(d, 16).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).ok()
}

fn sampling(reader: &mut Reader<'_>) -> Sampling {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let text = reader.text_or_default(NAME);
    let argument = reader.text_or_default(ARGUMENT);
    let share = argument.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    if share.is_none() {
        reader.problem(ARGUMENT, format!("{argument:?} is not a number from 0 to 1"));
    }
    let (parent_based, root) = match text.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, text.as_str()),
    };
    let root = match root {
        "always_on" => RootSampler::AlwaysOn,
        "always_off" => RootSampler::AlwaysOff,
        "traceidratio" => RootSampler::TraceIdRatio(share.unwrap_or(1.0)),
        _ => {
            reader.problem(
                NAME,
                format!(
                    "{text:?} is not `always_on`, `always_off` or `traceidratio`, or one of these after `parentbased_`"
                ),
            );
            RootSampler::AlwaysOff
        }
    };
    Sampling { parent_based, root }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Overrides, Problems};
    use super::*;

    const COLLECTOR: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    /// What these variables come to, with their warnings, or the problems.
    fn load(variables: &[(&str, &str)]) -> Result<(Config, Vec<Warning>), Problems> {
        let value = |name: &str| {
            let (_, value) = variables.iter().find(|(variable, _)| *variable == name)?;
            Some((*value).to_owned())
        };
        Config::load(&Surroundings {
            lookup: &value,
            names: &[],
            read_file: &|path| match path.to_str() {
                Some("/headers") => Ok("authorization=Bearer%20s3cret\n".to_owned()),
                _ => Err(std::io::ErrorKind::NotFound.into()),
            },
            overrides: Overrides::default(),
            cores: 2,
            terminal: false,
        })
    }

    fn traces(variables: &[(&str, &str)]) -> Option<Traces> {
        load(variables).unwrap().0.traces
    }

    #[test]
    fn there_are_no_traces_without_an_endpoint_or_when_they_are_disabled() {
        assert_eq!(traces(&[("OTEL_SERVICE_NAME", "x")]), None);
        assert_eq!(traces(&[COLLECTOR, ("OTEL_SDK_DISABLED", "TRUE")]), None);
        let traces = traces(&[COLLECTOR]).unwrap();
        assert_eq!(traces.endpoint.as_str(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(traces.timeout, Duration::from_secs(10));
        assert_eq!((traces.queue_spans_max, traces.batch_spans_max), (2048, 512));
        let sampling = Sampling { parent_based: true, root: RootSampler::AlwaysOn };
        assert_eq!((traces.sampling, traces.service_name.as_str()), (sampling, "process-sentinel"));
    }

    #[test]
    fn the_endpoint_of_traces_is_taken_whole_and_that_of_all_signals_is_completed() {
        const OF_TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        for (variables, whole) in [
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c/otel/")][..], "https://c/otel/v1/traces"),
            (&[COLLECTOR, (OF_TRACES, "https://c/x?y=z")][..], "https://c/x?y=z"),
        ] {
            assert_eq!(traces(variables).unwrap().endpoint.as_str(), whole);
        }
    }

    #[test]
    fn header_fields_are_secret_and_may_lie_in_a_file() {
        let (config, _) =
            load(&[COLLECTOR, ("OTEL_EXPORTER_OTLP_HEADERS_FILE", "/headers")]).unwrap();
        assert!(!config.print().contains("s3cret"), "{}", config.print());
        let traces = config.traces.unwrap();
        assert!(!format!("{traces:?}").contains("s3cret"), "{traces:?}");
        assert_eq!(traces.headers, [("authorization".to_owned(), "Bearer s3cret".to_owned())]);
    }

    #[test]
    fn the_port_of_grpc_gets_a_warning_that_names_the_right_one() {
        let (config, warnings) =
            load(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317")]).unwrap();
        assert!(config.traces.is_some());
        assert_eq!(warnings.len(), 1);
        assert_eq!(
            warnings[0].to_string(),
            "OTEL_EXPORTER_OTLP_ENDPOINT: 4317 is the port where collectors take gRPC; traces are sent as OTLP \
             over HTTP, which is port 4318"
        );
    }

    #[test]
    fn what_cannot_be_meant_is_a_problem_that_repeats_no_secret() {
        for (variable, problem) in [
            (
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
                "OTEL_EXPORTER_OTLP_ENDPOINT: \"http://collector:4318/v1/traces\" must begin with https:// \
                 (http:// is for loopback only)",
            ),
            (
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c?x=y"),
                "OTEL_EXPORTER_OTLP_ENDPOINT: must not hold a query, since /v1/traces is added",
            ),
            (
                ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret"),
                "OTEL_EXPORTER_OTLP_HEADERS: is not name=value pairs of header fields, separated by commas",
            ),
            (
                ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: \"grpc\" is not `http/protobuf`",
            ),
            (
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
                "OTEL_EXPORTER_OTLP_COMPRESSION: \"gzip\" is not `none`",
            ),
            (
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere"),
                "OTEL_EXPORTER_OTLP_CERTIFICATE: cannot read /nowhere: entity not found; name a file that the \
                 service may read",
            ),
            (
                ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
                "OTEL_TRACES_SAMPLER: \"jaeger_remote\" is not `always_on`, `always_off` or `traceidratio`, or one \
                 of these after `parentbased_`",
            ),
            (
                ("OTEL_TRACES_SAMPLER_ARG", "50%"),
                "OTEL_TRACES_SAMPLER_ARG: \"50%\" is not a number from 0 to 1",
            ),
            (
                ("OTEL_RESOURCE_ATTRIBUTES", "team"),
                "OTEL_RESOURCE_ATTRIBUTES: \"team\" is not name=value pairs, separated by commas",
            ),
            (("OTEL_SDK_DISABLED", "yes"), "OTEL_SDK_DISABLED: \"yes\" is not `true` or `false`"),
            (
                ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
                "OTEL_BSP_MAX_QUEUE_SIZE: \"0\" is not a whole number from 1 to 1000000",
            ),
        ] {
            let problems = load(&[variable, COLLECTOR]).unwrap_err();
            assert_eq!(problems.to_string(), problem);
        }
    }

    #[test]
    fn escapes_are_decoded_and_what_is_none_stays() {
        for (text, plain) in [
            ("Bearer%20abc", Some("Bearer abc")),
            ("a%2", Some("a%2")),
            ("a%zz", Some("a%zz")),
            ("%", Some("%")),
            ("%C3%A4", Some("ä")),
            ("%ff", None),
        ] {
            assert_eq!(percent_decoded(text).as_deref(), plain, "{text}");
        }
    }

    #[test]
    fn pairs_are_separated_by_commas_and_a_value_may_hold_an_equals_sign() {
        let expected = [("a", "1"), ("b", "x==")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(pairs(" a = 1 ,,b=x==").unwrap(), expected);
        assert_eq!(pairs("a"), None);
        assert_eq!(pairs("=a"), None);
    }
}
