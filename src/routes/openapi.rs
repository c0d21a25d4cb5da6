//! The API's own description (`OpenAPI` 3.1), made from the route table. This module adds the shapes of the bodies.
//!
//! Paths, methods, scopes and parameters come from the table itself, so the document cannot forget a route.

use std::borrow::Cow;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::problem::Kind;
use super::table::{Action, Body, ROUTES, Route, Scope};
use super::{Handled, JSON};
use crate::certificates::ClientAuth;
use crate::domain::dead_letter::Reason;
use crate::domain::log_row::Level;
use crate::domain::process::Status;
use crate::http::Reply;

/// What stands for a client certificate in `security`.
const MUTUAL_TLS: &str = "mutualTLS";

pub(super) fn answer<'a>(client_auth: ClientAuth) -> Handled<'a> {
    // One process may hold several services, each with a door of its own.
    static TEXTS: [OnceLock<String>; 3] = [const { OnceLock::new() }; 3];
    let text = match client_auth {
        ClientAuth::Off => &TEXTS[0],
        ClientAuth::Optional => &TEXTS[1],
        ClientAuth::Required => &TEXTS[2],
    };
    let text = text.get_or_init(|| document(client_auth).to_string());
    Handled::Reply(Reply {
        status: 200,
        content_type: JSON,
        headers: Vec::new(),
        body: Cow::Borrowed(text.as_bytes()),
        close: false,
    })
}

/// The whole document of an API that asks for certificates like this.
pub(super) fn document(client_auth: ClientAuth) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route, client_auth);
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
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route, client_auth: ClientAuth) -> Value {
    let mut parameters: Vec<Value> = Vec::new();
    for segment in route.path.split('/').filter(|segment| segment.starts_with('{')) {
        let name = segment.trim_matches(['{', '}']);
        parameters.push(
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
        );
    }
    for (name, meaning) in route.query {
        parameters.push(json!({ "name": name, "in": "query", "description": meaning, "schema": { "type": "string" } }));
    }
    if route.action == Action::PostEvents {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "schema": { "type": "string", "maxLength": 255 },
            "description": "required for a single event, refused on a batch",
        }));
    }
    if matches!(route.action, Action::Report(_)) {
        for (name, meaning) in [
            ("X-Sentinel-Process-Id", "the process, where the body does not name it"),
            ("Idempotency-Key", "makes a retry safe"),
        ] {
            parameters.push(json!({ "name": name, "in": "header", "description": meaning, "schema": { "type": "string" } }));
        }
    }
    if route.action == Action::Logs {
        parameters.push(json!({
            "name": "Last-Event-ID", "in": "header", "schema": { "type": "string" },
            "description": "the id of the last server-sent event that was read: the stream goes on behind it",
        }));
    }
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses(route),
    });
    let security = security(route, client_auth);
    if !security.is_empty() {
        operation["security"] = json!([security]);
    }
    if route.body != Body::None {
        operation["requestBody"] = json!({ "required": route.action == Action::PostEvents, "content": request_content(route) });
    }
    operation
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

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn request_content(route: &Route) -> Value {
    match route.action {
        Action::PostEvents => json!({
            "application/json": { "schema": reference("Envelope") },
            "application/cloudevents+json": { "schema": { "type": "object", "description": "CloudEvents 1.0.2, structured" } },
            "application/x-ndjson": { "schema": { "type": "string", "description": "one Envelope a line, up to 10,000" } },
            "application/cloudevents-batch+json": { "schema": { "type": "array", "maxItems": 10000, "items": { "type": "object" } } },
        }),
        Action::Log => json!({ "application/json": { "schema": {
            "oneOf": [reference("LogRow"), { "type": "array", "maxItems": 10000, "items": reference("LogRow") }] } } }),
        _ => json!({ "application/json": { "schema": reference("Report") } }),
    }
}

fn responses(route: &Route) -> Value {
    let problem = json!({
        "description": "a problem (RFC 9457)",
        "content": { "application/problem+json": { "schema": reference("Problem") } },
    });
    let (status, name, schema) = match route.action {
        Action::Report(_) => ("202", "durable", reference("Receipt")),
        Action::PostEvents => ("202", "durable", reference("Receipt")),
        Action::Log => ("202", "committed", json!({ "type": "object" })),
        Action::Status => ("200", "the process", reference("Process")),
        Action::Processes => ("200", "a page", page_of("processes", "Process")),
        Action::Runs => ("200", "a page", page_of("runs", "Run")),
        Action::Logs => ("200", "a page, or a stream", page_of("logs", "StoredLogRow")),
        Action::Events => ("200", "a page", page_of("events", "StoredEvent")),
        Action::StreamEvents => ("200", "events in order", page_of("events", "StoredEvent")),
        Action::Event => ("200", "the event", reference("StoredEvent")),
        Action::DeadLetters => ("200", "a page", page_of("dead_letters", "DeadLetter")),
        Action::DeadLetter => ("200", "the dead letter", reference("DeadLetter")),
        Action::Index
        | Action::Health
        | Action::Ready
        | Action::Metrics
        | Action::OpenApi
        | Action::ProblemHelp
        | Action::Stream => ("200", "the answer", json!({ "type": "object" })),
    };
    let media = if route.action == Action::Metrics { "application/openmetrics-text" } else { JSON };
    let schema = if route.action == Action::Metrics { json!({ "type": "string" }) } else { schema };
    let mut responses = json!({
        status: { "description": name, "content": { media: { "schema": schema } } },
        "default": problem,
    });
    if route.action == Action::PostEvents {
        responses["207"] = json!({ "description": "a batch of which not every line was accepted: one result a line" });
    }
    if route.action == Action::Logs {
        let content = &mut responses["200"]["content"];
        content["application/x-ndjson"] = json!({ "schema": {
            "type": "string", "description": "one StoredLogRow a line; with follow=true it goes on, and an empty line is a sign of life" } });
        content["text/event-stream"] = json!({ "schema": {
            "type": "string", "description": "each event's data is a StoredLogRow; it goes on with new rows, and a comment is a sign of life" } });
    }
    if route.action == Action::Status {
        responses["304"] = json!({ "description": "unchanged since the ETag of If-None-Match" });
    }
    responses
}

fn page_of(member: &str, schema: &str) -> Value {
    json!({ "type": "object", "properties": {
        member: { "type": "array", "items": reference(schema) },
        "next_cursor": { "type": ["string", "null"] },
    } })
}

fn words(words: impl Iterator<Item = &'static str>) -> Value {
    json!({ "type": "string", "enum": words.collect::<Vec<_>>() })
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let maybe_text = json!({ "type": ["string", "null"] });
    let time = json!({ "type": "string", "format": "date-time" });
    let maybe_time = json!({ "type": ["string", "null"], "format": "date-time" });
    let count = json!({ "type": "integer", "minimum": 0 });
    let statuses = words(Status::ALL.iter().map(|status| status.as_str()));
    let levels = words(Level::ALL.iter().map(|level| level.as_str()));
    let reasons = words(Reason::ALL.iter().map(|reason| reason.as_str()));
    let problems = words(Kind::ALL.iter().map(|kind| kind.name()));
    json!({
        "Envelope": {
            "type": "object", "required": ["eventId", "source", "type"],
            "properties": {
                "eventId": { "type": "string", "format": "uuid" }, "tenantId": text, "source": text, "type": text,
                "timestampUtc": time, "schemaVersion": { "type": "integer", "minimum": 1 },
                "streamKey": text, "idempotencyKey": text,
                "payload": { "description": "anything; of the type process.log a LogRow, which becomes a log row and no event" },
            },
        },
        "Report": {
            "type": "object",
            "properties": {
                "process_id": text, "process_name": text, "process_type": text, "package_name": text,
                "procedure_name": text, "correlation_id": text, "expected_duration_s": count,
                "heartbeat_interval_s": count, "timeout_s": count, "metadata": { "type": "object" },
                "current_step": text, "progress_percent": { "type": "number", "minimum": 0, "maximum": 100 },
                "message": text, "result": {}, "error_code": {}, "error_message": text, "stack_trace": text,
                "event_id": text, "run_id": text, "occurred_at": time,
            },
        },
        "Receipt": {
            "type": "object",
            "properties": {
                "process_id": text, "run_id": maybe_text, "eventId": text,
                "streamSeq": { "type": ["integer", "null"], "minimum": 1, "description": "null for a log row (type process.log)" },
                "receivedAtUtc": time, "traceId": text,
            },
        },
        "Process": {
            "type": "object",
            "properties": {
                "process_id": text, "status": statuses, "current_step": maybe_text,
                "progress_percent": { "type": ["number", "null"] }, "started_at": maybe_time, "last_update_at": time,
                "estimated_completion": maybe_time, "stale": { "type": "boolean" }, "reason": maybe_text,
                "run_id": maybe_text, "run_no": count, "ended_at": maybe_time, "last_life_at": maybe_time,
                "deadline_at": maybe_time, "process_name": maybe_text, "process_type": maybe_text,
                "correlation_id": maybe_text, "total_executions": count, "successful_runs": count,
                "failed_runs": count, "avg_duration_ms": { "type": ["integer", "null"] },
                "metadata": { "type": "object", "description": "the user's own, with package, procedure and tenant_id" },
            },
        },
        "Run": {
            "type": "object",
            "properties": {
                "run_id": maybe_text, "started_at": maybe_time, "ended_at": maybe_time,
                "outcome": { "type": ["string", "null"], "enum": ["completed", "failed", "superseded", null] },
                "duration_ms": { "type": ["integer", "null"] }, "error_code": maybe_text, "error_message": maybe_text,
            },
        },
        "LogRow": {
            "type": "object", "required": ["message"],
            "properties": {
                "level": levels, "message": { "type": "string", "maxLength": 4000 }, "event_type": text,
                "component": text, "details": {}, "stack_trace": text, "logged_at": time, "duration_us": count,
                "correlation_id": text, "trace_id": text, "span_id": text, "process_id": text,
            },
        },
        "StoredLogRow": { "allOf": [reference("LogRow"), { "type": "object", "properties": { "log_id": count } }] },
        "StoredEvent": { "allOf": [reference("Envelope"), { "type": "object", "properties": {
            "streamSeq": count, "receivedAtUtc": time, "processedAtUtc": time, "traceId": text } }] },
        "DeadLetter": {
            "type": "object",
            "properties": {
                "id": count, "tenantId": text, "reason": reasons, "detail": text, "eventId": maybe_text,
                "source": maybe_text, "streamKey": maybe_text, "streamSeq": { "type": ["integer", "null"] },
                "createdAtUtc": time, "event": {},
            },
        },
        "Problem": {
            "type": "object", "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": { "type": "string", "description": "/problems/ and one of the names", "x-names": problems },
                "title": text, "status": { "type": "integer" }, "detail": text, "field": text, "instance": text,
                "traceId": text,
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_and_the_route_table_say_the_same() {
        let document = document(ClientAuth::Off);
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
            document(client_auth)["paths"][path][method]["security"].clone()
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
            let scheme = &document(client_auth)["components"]["securitySchemes"]["mutualTLS"];
            let named = scheme["type"] == "mutualTLS";
            assert_eq!(named, client_auth != ClientAuth::Off, "{client_auth:?}: {scheme}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() {
        let document = document(ClientAuth::Off);
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
