//! The metrics as text, for whoever scrapes them. This module writes two dialects: `OpenMetrics`, which the metrics
//! library speaks, and Prometheus text 0.0.4, which is made of it line by line.

use std::collections::HashMap;

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// A way to write the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text004,
}

impl Dialect {
    /// The media type to send with it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text004 => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The metrics of `registry` in this dialect.
    pub fn encode(self, registry: &Registry) -> String {
        match self {
            Self::OpenMetrics => openmetrics(registry),
            Self::Text004 => text004(registry),
        }
    }
}

/// Which dialect a scraper wants who sent this `Accept`. `OpenMetrics` only for whoever names it: everybody
/// understands the other one.
pub fn negotiate(accept: Option<&str>) -> Dialect {
    let mut best = (0.0, Dialect::Text004);
    for range in accept.unwrap_or_default().split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let mut quality = 1.0;
        let mut version = None;
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        let dialect = match media.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" if matches!(version, None | Some("1.0.0" | "0.0.1")) => {
                Dialect::OpenMetrics
            }
            "text/plain" | "text/*" | "*/*" => Dialect::Text004,
            _ => continue,
        };
        if quality > best.0 {
            best = (quality, dialect);
        }
    }
    best.1
}

/// The metrics of `registry` as `OpenMetrics` 1.0.
pub fn openmetrics(registry: &Registry) -> String {
    let mut out = String::new();
    text::encode(&mut out, registry).expect("writing to a string cannot fail");
    out
}

/// The metrics of `registry` as Prometheus text 0.0.4.
///
/// That dialect wants a counter called by its whole name in its head lines, knows no units, no exemplars, no end
/// mark, and no types but four and `untyped`.
pub fn text004(registry: &Registry) -> String {
    let mut source = String::new();
    text::encode_registry(&mut source, registry).expect("writing to a string cannot fail");
    translate(&source)
}

fn translate(source: &str) -> String {
    let types: HashMap<&str, &str> =
        source.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut out = String::with_capacity(source.len() + 1024);
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let Some((keyword @ ("HELP" | "TYPE"), rest)) = rest.split_once(' ') else { continue };
            let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
            let (suffix, kind) = match types.get(name).copied().unwrap_or("unknown") {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind @ ("gauge" | "histogram" | "summary") => ("", kind),
                "stateset" => ("", "gauge"),
                _ => ("", "untyped"),
            };
            let text = if keyword == "TYPE" { kind } else { text };
            out.extend(["# ", keyword, " ", name, suffix, " ", text, "\n"]);
        } else {
            out.extend([without_exemplar(line), "\n"]);
        }
    }
    out
}

/// A sample without the exemplar behind it. A `#` within a quoted label value begins none.
fn without_exemplar(sample: &str) -> &str {
    let (mut quoted, mut escaped) = (false, false);
    for (index, byte) in sample.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return sample[..index].trim_end(),
            _ => {}
        }
    }
    sample
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::exemplar::CounterWithExemplar;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::metrics::info::Info;
    use prometheus_client::registry::Unit;

    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn registry() -> Registry {
        let mut registry = Registry::default();
        let requests: Family<Vec<(String, String)>, Counter> = Family::default();
        requests.get_or_create(&vec![("path".to_string(), "a \"b\" # {c}\n".to_string())]).inc();
        registry.register("requests", "Requests answered", requests);
        let depth: Gauge = Gauge::default();
        depth.set(3);
        registry.register_with_unit("depth", "How deep", Unit::Bytes, depth);
        let took = Histogram::new([0.5]);
        took.observe(0.1);
        registry.register("took_seconds", "How long", took);
        let traced: CounterWithExemplar<Vec<(String, String)>> = CounterWithExemplar::default();
        traced.inc_by(1, Some(vec![("trace_id".to_string(), "abc".to_string())]), None);
        registry.register("traced", "With an exemplar", traced);
        registry.register("build", "What this is", Info::new(vec![("version", "1")]));
        registry
    }

    #[test]
    fn a_counter_is_called_by_its_whole_name_and_exemplars_units_and_the_end_mark_are_left_out() {
        expect_test::expect![[r##"
            # HELP requests_total Requests answered.
            # TYPE requests_total counter
            requests_total{path="a \"b\" # {c}\n"} 1
            # HELP depth_bytes How deep.
            # TYPE depth_bytes gauge
            depth_bytes 3
            # HELP took_seconds How long.
            # TYPE took_seconds histogram
            took_seconds_sum 0.1
            took_seconds_count 1
            took_seconds_bucket{le="0.5"} 1
            took_seconds_bucket{le="+Inf"} 1
            # HELP traced_total With an exemplar.
            # TYPE traced_total counter
            traced_total 1
            # HELP build_info What this is.
            # TYPE build_info gauge
            build_info{version="1"} 1
        "##]]
        .assert_eq(&text004(&registry()));
    }

    #[test]
    fn openmetrics_keeps_exemplars_and_ends_with_its_mark() {
        let text = openmetrics(&registry());
        assert!(text.ends_with("# EOF\n"), "{text}");
        assert!(text.contains("# {trace_id=\"abc\"}"), "{text}");
        assert!(text.contains("# UNIT depth_bytes bytes"), "{text}");
    }

    #[test]
    fn every_metric_of_ours_survives_the_translation() {
        let metrics = Metrics::new();
        metrics.replied(200, std::time::Duration::from_millis(3), 700, Some([0xab; 16]));
        metrics.processed("success", 2);
        let text = text004(metrics.registry());
        assert!(text.contains("\ngateway_requests_total{status=\"200\"} 1\n"), "{text}");
        assert!(text.contains("# TYPE processor_events_total counter\n"), "{text}");
        assert!(text.contains("# TYPE process_cpu_seconds_total counter\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn openmetrics_is_for_whoever_asks_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, dialect) in [
            (None, Dialect::Text004),
            (Some(""), Dialect::Text004),
            (Some("*/*"), Dialect::Text004),
            (Some("text/html"), Dialect::Text004),
            (Some("application/openmetrics-text"), Dialect::OpenMetrics),
            (Some("application/openmetrics-text; version=\"1.0.0\""), Dialect::OpenMetrics),
            (Some("application/openmetrics-text;version=2.0.0"), Dialect::Text004),
            (Some("application/openmetrics-text;q=0.1, text/plain"), Dialect::Text004),
            (Some("application/openmetrics-text;q=0"), Dialect::Text004),
            (Some(prometheus), Dialect::OpenMetrics),
        ] {
            assert_eq!(negotiate(accept), dialect, "{accept:?}");
        }
    }
}
