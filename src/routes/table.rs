//! Every route, in one table: method, path, who may, where it runs, what it does. This module finds the one meant.
//!
//! The API's document, the tenancy test and the front all read this table, so that none of them can forget a route.

use std::borrow::Cow;

use crate::domain::report::ReportKind;
use crate::http::{Method, Place, Port};

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Anybody: probes and documents.
    Open,
    /// `/metrics`: anybody in development mode and on the metrics port, else a token or a proven certificate.
    Scrape,
    Read,
    Write,
    Operate,
}

/// What a route does. The handlers are in the modules beside this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Index,
    Health,
    Ready,
    Metrics,
    OpenApi,
    ProblemHelp,
    Report(ReportKind),
    Log,
    PostEvents,
    Status,
    Processes,
    Runs,
    Logs,
    Events,
    Event,
    Stream,
    StreamEvents,
    DeadLetters,
    DeadLetter,
}

/// How much body a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    None,
    /// One event or report: `SENTINEL_MAX_BODY_BYTES`.
    One,
    /// Up to a batch: `SENTINEL_MAX_BATCH_BYTES`.
    Many,
}

/// One route.
#[derive(Debug)]
pub struct Route {
    pub method: Method,
    /// A segment in braces stands for one percent-encoded path segment.
    pub path: &'static str,
    pub scope: Scope,
    /// Where the API asks its clients for certificates, only those get in who have proven one. It replaces no token.
    pub certificate: bool,
    pub place: Place,
    pub body: Body,
    pub action: Action,
    /// One line for the API's document.
    pub summary: &'static str,
    /// Query parameters and what they mean.
    pub query: &'static [(&'static str, &'static str)],
}

impl Route {
    /// Probes and scrapers ask all the time, and no user waits for the answer.
    pub fn is_for_machines(&self) -> bool {
        matches!(self.action, Action::Health | Action::Ready | Action::Metrics)
    }

    /// Whether its answer takes a question to the store. What posts waits for an answer without holding up a loop.
    pub const fn reads_store(&self) -> bool {
        !matches!(
            self.action,
            Action::Index
                | Action::Health
                | Action::Metrics
                | Action::OpenApi
                | Action::ProblemHelp
                | Action::Report(_)
                | Action::Log
                | Action::PostEvents
        )
    }
}

const LIMIT: (&str, &str) =
    ("limit", "rows on a page, 1 to 1000; a page of large rows ends earlier");
const CURSOR: (&str, &str) = ("cursor", "next_cursor of the page before");
const TENANT: (&str, &str) = ("tenant", "another tenant; needs sentinel:admin");
const TENANT_OR_NONE: (&str, &str) =
    ("tenant", "another tenant, or #none for what could not be read; needs sentinel:admin");
const FROM: (&str, &str) = ("from", "RFC 3339; this time or later");
const TO: (&str, &str) = ("to", "RFC 3339; before this time");

const fn get(
    path: &'static str,
    scope: Scope,
    place: Place,
    action: Action,
    summary: &'static str,
    query: &'static [(&'static str, &'static str)],
) -> Route {
    let (certificate, body) = (matches!(scope, Scope::Scrape), Body::None);
    Route { method: Method::Get, path, scope, certificate, place, body, action, summary, query }
}

const fn report(path: &'static str, kind: ReportKind, summary: &'static str) -> Route {
    Route {
        method: Method::Post,
        path,
        scope: Scope::Write,
        certificate: true,
        place: Place::Loop,
        body: Body::One,
        action: Action::Report(kind),
        summary,
        query: &[TENANT],
    }
}

/// The table. A route's place is the loop only where its work is certain to be short.
pub static ROUTES: &[Route] = &[
    get("/", Scope::Open, Place::Loop, Action::Index, "What this is and where to go on", &[]),
    get(
        "/health",
        Scope::Open,
        Place::Loop,
        Action::Health,
        "200 as long as the process runs",
        &[],
    ),
    get(
        "/ready",
        Scope::Open,
        Place::Worker,
        Action::Ready,
        "Whether this instance can do its work, line by line",
        &[],
    ),
    get(
        "/metrics",
        Scope::Scrape,
        Place::Worker,
        Action::Metrics,
        "OpenMetrics, or Prometheus text 0.0.4",
        &[],
    ),
    get("/openapi.json", Scope::Open, Place::Worker, Action::OpenApi, "This document", &[]),
    get(
        "/problems/{name}",
        Scope::Open,
        Place::Loop,
        Action::ProblemHelp,
        "What a problem means and what to do",
        &[],
    ),
    report("/internal/register", ReportKind::Register, "Make a process known before its first run"),
    report("/internal/start", ReportKind::Start, "A run begins; its run_id is in the answer"),
    report("/internal/progress", ReportKind::Progress, "A run has come so far"),
    report("/internal/heartbeat", ReportKind::Heartbeat, "A run is alive"),
    report("/internal/pause", ReportKind::Pause, "A run pauses; it is not waited for"),
    report("/internal/resume", ReportKind::Resume, "A paused run goes on"),
    report("/internal/complete", ReportKind::Complete, "A run ends well"),
    report("/internal/error", ReportKind::Error, "A run ends badly"),
    Route {
        method: Method::Post,
        path: "/internal/log",
        scope: Scope::Write,
        certificate: true,
        place: Place::Worker,
        body: Body::Many,
        action: Action::Log,
        summary: "Log rows of a process: one object or an array of up to 10,000",
        query: &[TENANT],
    },
    Route {
        method: Method::Post,
        path: "/v1/events",
        scope: Scope::Write,
        certificate: false,
        place: Place::Loop,
        body: Body::Many,
        action: Action::PostEvents,
        summary: "One event, or a batch as NDJSON or CloudEvents batch",
        query: &[TENANT],
    },
    get(
        "/status/{id}",
        Scope::Read,
        Place::Loop,
        Action::Status,
        "What a process is doing",
        &[
            TENANT,
            ("seen", "answer once this stream number is applied"),
            ("wait", "how long to wait for it, such as 2s"),
        ],
    ),
    get(
        "/processes",
        Scope::Read,
        Place::Worker,
        Action::Processes,
        "The processes that an operator looks for; status=all shows every one",
        &[
            TENANT,
            ("status", "comma-separated, or all"),
            ("type", "process_type"),
            ("name", "process_name"),
            LIMIT,
            CURSOR,
        ],
    ),
    get(
        "/processes/{id}/runs",
        Scope::Read,
        Place::Worker,
        Action::Runs,
        "The runs of a process, the newest first",
        &[TENANT, LIMIT, CURSOR],
    ),
    get(
        "/logs/{id}",
        Scope::Read,
        Place::Worker,
        Action::Logs,
        "What a process said, the oldest first; NDJSON streams all of it, and it can be followed",
        &[
            TENANT,
            ("level", "this level and the more severe ones"),
            FROM,
            TO,
            LIMIT,
            CURSOR,
            (
                "follow",
                "true: goes on with new rows, as NDJSON or, by Accept, as server-sent events; false: these end with the newest row",
            ),
        ],
    ),
    get(
        "/v1/events",
        Scope::Read,
        Place::Worker,
        Action::Events,
        "Events, the newest first",
        &[TENANT, FROM, TO, ("source", ""), ("type", ""), ("stream", "streamKey"), LIMIT, CURSOR],
    ),
    get("/v1/events/{id}", Scope::Read, Place::Worker, Action::Event, "One event", &[TENANT]),
    get(
        "/v1/streams/{key}",
        Scope::Read,
        Place::Worker,
        Action::Stream,
        "What is known of a stream",
        &[TENANT],
    ),
    get(
        "/v1/streams/{key}/events",
        Scope::Read,
        Place::Worker,
        Action::StreamEvents,
        "The events of a stream after a number, in order and without a gap",
        &[
            TENANT,
            ("after", "the last number already seen; 0 from the start"),
            LIMIT,
            ("wait", "how long to wait where there is none yet, like 20s; 60s at most"),
        ],
    ),
    get(
        "/v1/dead-letters",
        Scope::Read,
        Place::Worker,
        Action::DeadLetters,
        "Events that could not be applied, the newest first",
        &[TENANT_OR_NONE, ("reason", ""), ("source", ""), FROM, TO, LIMIT, CURSOR],
    ),
    get(
        "/v1/dead-letters/{id}",
        Scope::Read,
        Place::Worker,
        Action::DeadLetter,
        "One dead letter, whole",
        &[TENANT_OR_NONE],
    ),
];

/// What looking for a route found.
#[derive(Debug)]
pub enum Found {
    Route(&'static Route),
    /// The path is known and takes these methods.
    OtherMethods(Vec<&'static Method>),
    Nothing,
}

/// The route that a request means. HEAD means GET. The metrics port knows only the open routes for machines.
pub fn find(method: &Method, path: &str, port: Port) -> Found {
    let wanted = if *method == Method::Head { &Method::Get } else { method };
    let mut others = Vec::new();
    for route in ROUTES {
        let served = match port {
            Port::Api => true,
            Port::Metrics => {
                matches!(route.action, Action::Metrics | Action::Health | Action::Ready)
            }
        };
        if served && fits(route.path, path) {
            if route.method == *wanted {
                return Found::Route(route);
            }
            others.push(&route.method);
        }
    }
    if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
}

/// Whether a path, as sent, has the shape of a route's path.
fn fits(pattern: &str, path: &str) -> bool {
    // The first letter sorts out nearly every route at no cost.
    let first = pattern.as_bytes().get(1);
    if first != path.as_bytes().get(1) && first != Some(&b'{') {
        return false;
    }
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(p), Some(s)) if p.starts_with('{') && !s.is_empty() => {}
            (Some(p), Some(s)) if p == s => {}
            _ => return false,
        }
    }
}

/// The value of the segment in braces, percent-decoded. None: it is no UTF-8.
pub fn argument<'p>(route: &Route, path: &'p str) -> Option<Cow<'p, str>> {
    let position = route.path.split('/').position(|segment| segment.starts_with('{'))?;
    percent_decode(path.split('/').nth(position)?, false)
}

/// Undoes percent-encoding (RFC 3986, section 2.1); in a query a plus is a blank.
pub fn percent_decode(text: &str, plus_is_blank: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| b == b'%' || (plus_is_blank && b == b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let (high, low) = (hex(rest.next()?)?, hex(rest.next()?)?);
                high * 16 + low
            }
            b'+' if plus_is_blank => b' ',
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_route_and_its_argument() {
        let Found::Route(route) = find(&Method::Get, "/v1/streams/a%2Fb%20c/events", Port::Api)
        else {
            panic!()
        };
        assert_eq!(route.action, Action::StreamEvents);
        assert_eq!(argument(route, "/v1/streams/a%2Fb%20c/events").unwrap(), "a/b c");
        assert!(matches!(find(&Method::Head, "/health", Port::Api), Found::Route(_)));
    }

    #[test]
    fn a_known_path_names_its_methods_and_an_unknown_one_is_nothing() {
        let Found::OtherMethods(methods) = find(&Method::Put, "/v1/events", Port::Api) else {
            panic!()
        };
        assert_eq!(methods, [&Method::Post, &Method::Get]);
        for path in ["/v1", "/status/", "/status", "/status/a/b", "//health", "/nope"] {
            assert!(matches!(find(&Method::Get, path, Port::Api), Found::Nothing), "{path}");
        }
    }

    #[test]
    fn services_and_scrapers_show_a_certificate_where_one_is_asked_for_and_nobody_else_must() {
        for route in ROUTES {
            let machines = route.path.starts_with("/internal/") || route.path == "/metrics";
            assert_eq!(route.certificate, machines, "{}", route.path);
        }
    }

    #[test]
    fn the_metrics_port_serves_machines_only() {
        assert!(matches!(find(&Method::Get, "/metrics", Port::Metrics), Found::Route(_)));
        assert!(matches!(find(&Method::Get, "/processes", Port::Metrics), Found::Nothing));
    }

    #[test]
    fn broken_percent_encoding_is_refused() {
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(percent_decode(bad, false), None, "{bad}");
        }
        assert_eq!(percent_decode("a+b%2B", true).unwrap(), "a b+");
        assert_eq!(percent_decode("a+b", false).unwrap(), "a+b");
    }
}
