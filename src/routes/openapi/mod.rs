//! The API's own description (`OpenAPI` 3.1), made from the route table. This module adds what a request may carry and
//! what an answer holds; `schemas` has the shapes of the bodies.
//!
//! Paths, methods, scopes and parameters come from the table itself, so the document cannot forget a route.

mod schemas;

use std::borrow::Cow;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use self::schemas::{page_of, process_id, reference, report_name, time, whole, words};
use super::problem::Kind;
use super::table::{Action, Body, ROUTES, Route, Scope};
use super::{Handled, JSON};
use crate::certificates::ClientAuth;
use crate::domain::dead_letter::Reason;
use crate::domain::ids::{EventType, Source, StreamKey};
use crate::domain::log_row::Level;
use crate::domain::process::Status;
use crate::http::Reply;

/// What stands for a client certificate in `security`.
const MUTUAL_TLS: &str = "mutualTLS";

pub(super) fn answer<'a>(client_auth: ClientAuth, development: bool) -> Handled<'a> {
    // One process may hold several services, each with a door of its own.
    static TEXTS: [OnceLock<String>; 4] = [const { OnceLock::new() }; 4];
    let text = match client_auth {
        // Development mode asks nobody for a certificate.
        ClientAuth::Off if development => &TEXTS[3],
        ClientAuth::Off => &TEXTS[0],
        ClientAuth::Optional => &TEXTS[1],
        ClientAuth::Required => &TEXTS[2],
    };
    let text = text.get_or_init(|| document(client_auth, development).to_string());
    Handled::Reply(Reply {
        status: 200,
        content_type: JSON,
        headers: Vec::new(),
        body: Cow::Borrowed(text.as_bytes()),
        close: false,
    })
}

/// The whole document of an API that asks for certificates like this. In `development` mode metrics are open.
pub(super) fn document(client_auth: ClientAuth, development: bool) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] =
            operation(route, client_auth, development);
    }
    let mut schemes = json!({
        "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" }
    });
    if client_auth != ClientAuth::Off {
        schemes[MUTUAL_TLS] = json!({
            "type": "mutualTLS",
            "description": "a certificate that the authority in SENTINEL_TLS_CLIENT_CA_FILE has signed",
        });
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Process Sentinel",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Knows what every long-running process is doing, and tells when one is lost.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "securitySchemes": schemes,
            "schemas": schemas::all(),
        },
    })
}

fn operation(route: &Route, client_auth: ClientAuth, development: bool) -> Value {
    let parameters = parameters(route);
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses(route, development),
    });
    let security = security(route, client_auth);
    let is_open = development && route.scope == Scope::Scrape;
    if !security.is_empty() && !is_open {
        operation["security"] = json!([security]);
    }
    if route.body != Body::None {
        let required = matches!(route.action, Action::PostEvents | Action::Log);
        operation["requestBody"] =
            json!({ "required": required, "content": request_content(route) });
    }
    if route.action == Action::PostEvents {
        operation["description"] = json!(BINARY);
    }
    operation
}

/// What a media type cannot say.
const BINARY: &str = "CloudEvents in the binary form are taken, too: ce-specversion, ce-id, ce-source and ce-type among \
    the header fields, and the data, of any content type, as the body.";

/// What a request may carry beside its body.
fn parameters(route: &Route) -> Vec<Value> {
    let mut parameters: Vec<Value> = Vec::new();
    for segment in route.path.split('/').filter(|segment| segment.starts_with('{')) {
        let name = segment.trim_matches(['{', '}']);
        let schema = match route.action {
            Action::ProblemHelp => words(Kind::ALL.iter().map(|kind| kind.name())),
            Action::DeadLetter => json!({ "type": "integer", "minimum": 0 }),
            _ => json!({ "type": "string", "minLength": 1 }),
        };
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
    }
    for (name, meaning) in route.query {
        parameters.push(json!({
            "name": name, "in": "query", "description": meaning, "schema": query_schema(route, name) }));
    }
    let mut field = |name: &str, meaning: &str, schema: Value| {
        parameters.push(
            json!({ "name": name, "in": "header", "description": meaning, "schema": schema }),
        );
    };
    match route.action {
        Action::PostEvents => {
            field(
                "Idempotency-Key",
                "required for a single event, refused on a batch",
                schemas::key(),
            );
        }
        Action::Report(_) => {
            field(
                "X-Sentinel-Process-Id",
                "the process, where the body does not name it",
                process_id(),
            );
            field("Idempotency-Key", "makes a retry safe", schemas::key());
        }
        Action::Log => {
            field("X-Sentinel-Process-Id", "the process of the rows that name none", process_id());
        }
        Action::Status => {
            let text = json!({ "type": "string" });
            field("If-None-Match", "the ETag of an answer: 304 while that still holds", text);
        }
        Action::Logs => field(
            "Last-Event-ID",
            "the id of the last server-sent event that was read: the stream goes on behind it",
            json!({ "type": "string" }),
        ),
        _ => {}
    }
    parameters
}

/// What a parameter of the query may be. An empty one counts as absent, but for the tenant.
fn query_schema(route: &Route, parameter: &str) -> Value {
    const TENANT: &str = "[A-Za-z0-9._-]{1,50}";
    match parameter {
        "limit" => json!({ "type": "integer", "minimum": 1, "maximum": 1000 }),
        "after" | "seen" => json!({ "type": "integer", "minimum": 0 }),
        "from" | "to" => {
            let mut time = time();
            time["description"] = json!("of the years 1970 to 9999");
            time
        }
        "level" => words(Level::ALL.iter().map(|level| level.as_str())),
        "reason" => words(Reason::ALL.iter().map(|reason| reason.as_str())),
        "follow" => json!({ "type": "boolean" }),
        "wait" => json!({ "type": "string", "pattern": "^([1-5]?[0-9]|60)s$" }),
        "tenant" if matches!(route.action, Action::DeadLetters | Action::DeadLetter) => {
            json!({ "type": "string", "pattern": format!("^({TENANT}|#none)$") })
        }
        "tenant" => json!({ "type": "string", "pattern": format!("^{TENANT}$") }),
        "status" => {
            let one =
                Status::ALL.iter().map(|status| status.as_str()).collect::<Vec<_>>().join("|");
            json!({ "type": "string", "pattern": format!("^(all|({one})(,({one}))*)$") })
        }
        "source" => schemas::name(Source::CHARS_MAX),
        "stream" => schemas::name(StreamKey::CHARS_MAX),
        "type" if route.action == Action::Events => schemas::name(EventType::CHARS_MAX),
        _ => json!({ "type": "string" }),
    }
}

/// What a caller must bring, all of it.
fn security(route: &Route, client_auth: ClientAuth) -> Map<String, Value> {
    let mut all = Map::new();
    let certificate = match client_auth {
        ClientAuth::Off => false,
        ClientAuth::Optional => route.certificate,
        // Nobody gets as far as a route without one.
        ClientAuth::Required => true,
    };
    // Whoever scrapes with a certificate needs no token.
    let token = match route.scope {
        Scope::Open => false,
        Scope::Scrape => !certificate,
        Scope::Read | Scope::Write | Scope::Operate => true,
    };
    if token {
        all.insert("bearer".to_owned(), json!([scope_role(route.scope)]));
    }
    if certificate {
        all.insert(MUTUAL_TLS.to_owned(), json!([]));
    }
    all
}

fn operation_id(route: &Route) -> String {
    let words = route.path.split(['/', '{', '}', '-']).filter(|word| !word.is_empty());
    words.fold(route.method.as_str().to_ascii_lowercase(), |id, word| {
        format!("{id}_{}", word.replace('.', "_"))
    })
}

fn scope_role(scope: Scope) -> &'static str {
    match scope {
        Scope::Open => "",
        Scope::Scrape | Scope::Read => "sentinel:read",
        Scope::Write => "sentinel:write",
        Scope::Operate => "sentinel:operate",
    }
}

fn request_content(route: &Route) -> Value {
    let json_of = |schema: Value| json!({ "application/json": { "schema": schema } });
    match route.action {
        Action::PostEvents => json!({
            "application/json": { "schema": reference("Envelope") },
            "application/cloudevents+json": { "schema": reference("CloudEvent") },
            "application/x-ndjson": { "schema": { "type": "string", "description": "one Envelope a line, up to 10,000" } },
            "application/cloudevents-batch+json": { "schema": {
                "type": "array", "minItems": 1, "maxItems": 10000, "items": reference("CloudEvent") } },
        }),
        Action::Log => json_of(json!({ "oneOf": [
            reference("LogRow"), { "type": "array", "maxItems": 10000, "items": reference("LogRow") }] })),
        Action::Report(kind) => json_of(reference(report_name(kind))),
        _ => json!({}),
    }
}

fn responses(route: &Route, development: bool) -> Value {
    let problem = |description: &str| {
        json!({
            "description": description,
            "content": { "application/problem+json": { "schema": reference("Problem") } },
        })
    };
    let (status, name, schema) = match route.action {
        Action::Report(_) => ("202", "durable", reference("ReportReceipt")),
        Action::PostEvents => {
            let lines = json!({ "type": "array", "items": reference("LineResult") });
            let any = json!({ "oneOf": [reference("Receipt"), lines] });
            ("202", "durable: the receipt of an event, or the results of a CloudEvents batch", any)
        }
        Action::Log => ("202", "committed", reference("LogReceipt")),
        Action::Status => ("200", "the process", reference("Process")),
        Action::Processes => ("200", "a page", page_of("processes", "Process")),
        Action::Runs => ("200", "a page", page_of("runs", "Run")),
        Action::Logs => ("200", "a page, or a stream", page_of("logs", "StoredLogRow")),
        Action::Events => ("200", "a page", page_of("events", "StoredEvent")),
        Action::StreamEvents => {
            let after = json!({ "type": "integer", "minimum": 0, "description": "where to go on" });
            let events = json!({ "type": "array", "items": reference("StoredEvent") });
            ("200", "events in order", whole(json!({ "events": events, "after": after })))
        }
        Action::Event => ("200", "the event", reference("StoredEvent")),
        Action::Stream => ("200", "what is known of it", reference("Stream")),
        Action::DeadLetters => ("200", "a page", page_of("dead_letters", "DeadLetter")),
        Action::DeadLetter => ("200", "the dead letter", reference("DeadLetter")),
        Action::Index => ("200", "where to go on", reference("Index")),
        Action::Health => ("200", "it runs", reference("Health")),
        Action::Ready => ("200", "it can do its work, ready or degraded", reference("Readiness")),
        Action::Metrics => ("200", "the metrics", json!({ "type": "string" })),
        Action::OpenApi => ("200", "this document", json!({ "type": "object" })),
        Action::ProblemHelp => ("200", "the problem", reference("ProblemHelp")),
    };
    let mut answer = json!({ "description": name, "content": { JSON: { "schema": schema } } });
    let mut responses = json!({ "default": problem("a problem (RFC 9457)") });
    let text = json!({ "schema": { "type": "string" } });
    if route.scope != Scope::Open && !(development && route.scope == Scope::Scrape) {
        responses["401"] = problem("no token, or none that is good");
        responses["401"]["headers"]["WWW-Authenticate"] = text.clone();
        responses["503"] =
            problem("cannot be taken or answered now: nothing was kept, send the same again");
        responses["503"]["headers"]["Retry-After"] = json!({ "schema": { "type": "integer" } });
    }
    match route.action {
        Action::Metrics => {
            answer["content"] = json!({ "text/plain": text, "application/openmetrics-text": text });
        }
        Action::Ready => {
            responses["503"] = json!({
                "description": "it cannot read, cannot write or is stopping: the checks say why",
                "content": { JSON: { "schema": reference("Readiness") } },
            });
        }
        Action::Report(_) | Action::PostEvents => {
            answer["headers"]["Idempotency-Replayed"] = json!({ "description": "true: the first answer, given again", "schema": { "const": "true" } });
        }
        Action::Logs => {
            answer["content"]["application/x-ndjson"] = json!({ "schema": {
                "type": "string", "description": "one StoredLogRow a line; with follow=true it goes on, and an empty line is a sign of life" } });
            answer["content"]["text/event-stream"] = json!({ "schema": {
                "type": "string", "description": "each event's data is a StoredLogRow; it goes on with new rows, and a comment is a sign of life" } });
        }
        Action::Status => {
            answer["headers"]["ETag"] = text.clone();
            responses["304"] =
                json!({ "description": "unchanged since the ETag of If-None-Match" });
        }
        _ => {}
    }
    if route.query.iter().any(|(name, _)| *name == "cursor") {
        answer["headers"]["Link"] = json!({ "description": "rel=next (RFC 8288), where there is a next page", "schema": { "type": "string" } });
    }
    if route.action == Action::PostEvents {
        let lines = json!({ "schema": { "type": "string", "description": "one LineResult a line, in the order of the batch" } });
        answer["content"]["application/x-ndjson"] = lines.clone();
        responses["207"] = json!({
            "description": "a batch of which not every line was accepted: one result a line",
            "content": {
                JSON: { "schema": { "type": "array", "items": reference("LineResult") } },
                "application/x-ndjson": lines,
            },
        });
    }
    responses[status] = answer;
    responses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_and_the_route_table_say_the_same() {
        let document = document(ClientAuth::Off, false);
        let paths = document["paths"].as_object().unwrap();
        let mut described: Vec<(String, String)> = paths
            .iter()
            .flat_map(|(path, operations)| {
                operations
                    .as_object()
                    .unwrap()
                    .keys()
                    .map(|method| (path.clone(), method.to_ascii_uppercase()))
            })
            .collect();
        let mut routed: Vec<(String, String)> = ROUTES
            .iter()
            .map(|route| (route.path.to_owned(), route.method.as_str().to_owned()))
            .collect();
        described.sort();
        routed.sort();
        assert_eq!(described, routed);
    }

    #[test]
    fn certificates_are_named_where_they_are_asked_for() {
        let security = |client_auth, path: &str, method: &str| {
            document(client_auth, false)["paths"][path][method]["security"].clone()
        };
        let write = json!(["sentinel:write"]);
        let both = json!([{ "bearer": write, "mutualTLS": [] }]);
        for (client_auth, health, metrics, report, post) in [
            (
                ClientAuth::Off,
                Value::Null,
                json!([{ "bearer": ["sentinel:read"] }]),
                json!([{ "bearer": write }]),
                json!([{ "bearer": write }]),
            ),
            (
                ClientAuth::Optional,
                Value::Null,
                json!([{ "mutualTLS": [] }]),
                both.clone(),
                json!([{ "bearer": write }]),
            ),
            (
                ClientAuth::Required,
                json!([{ "mutualTLS": [] }]),
                json!([{ "mutualTLS": [] }]),
                both.clone(),
                both.clone(),
            ),
        ] {
            assert_eq!(security(client_auth, "/health", "get"), health, "{client_auth:?}");
            assert_eq!(security(client_auth, "/metrics", "get"), metrics, "{client_auth:?}");
            assert_eq!(security(client_auth, "/internal/start", "post"), report, "{client_auth:?}");
            assert_eq!(security(client_auth, "/v1/events", "post"), post, "{client_auth:?}");
            let scheme =
                &document(client_auth, false)["components"]["securitySchemes"]["mutualTLS"];
            let named = scheme["type"] == "mutualTLS";
            assert_eq!(named, client_auth != ClientAuth::Off, "{client_auth:?}: {scheme}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() {
        let document = document(ClientAuth::Off, false);
        let text = document.to_string();
        for (at, _) in text.match_indices("#/components/schemas/") {
            let name: String =
                text[at + 21..].chars().take_while(char::is_ascii_alphanumeric).collect();
            assert!(document["components"]["schemas"].get(&name).is_some(), "{name}");
        }
        let mut ids: Vec<String> = ROUTES.iter().map(operation_id).collect();
        ids.sort();
        let all = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), all);
    }
}
