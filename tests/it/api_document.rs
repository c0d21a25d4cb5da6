//! `/openapi.json` says what every route takes and answers. This module asks each route and holds the answer against the
//! document: its status, its media type, and every member of its body.

use std::collections::BTreeSet;

use sentinel::routes::table::ROUTES;
use sentinel::service::{Parts, wall_clock};
use serde_json::{Value, json};

use crate::harness::{Client, InProcess, Response, envelope, eventually, token};

/// What of `value` does not fit `schema`. Members that the schema does not name do not fit either.
fn misfits(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target =
            document.pointer(reference.trim_start_matches('#')).expect("it leads somewhere");
        return misfits(document, target, value, at, found);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fits = |choice: &&Value| {
            let mut other = Vec::new();
            misfits(document, choice, value, at, &mut other);
            other.is_empty()
        };
        if choices.iter().filter(fits).count() != 1 {
            found.push(format!("{at}: {value} is not one of the choices"));
        }
        return;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec![kind],
    };
    let is_number = kind == "integer" && types.contains(&"number");
    if !types.contains(&kind) && !is_number {
        found.push(format!("{at}: {value} is none of {types:?}"));
    }
    let words = schema["enum"].as_array();
    if words.is_some_and(|words| !words.contains(value))
        || schema.get("const").is_some_and(|only| only != value)
    {
        found.push(format!("{at}: {value} is no word of the document"));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_f64(), value.as_f64())
        && number < least
    {
        found.push(format!("{at}: {number} is below {least}"));
    }
    for (index, element) in value.as_array().into_iter().flatten().enumerate() {
        misfits(document, &schema["items"], element, &format!("{at}[{index}]"), found);
    }
    let (Some(members), Some(properties)) = (value.as_object(), schema["properties"].as_object())
    else {
        return;
    };
    for (name, member) in members {
        match properties.get(name) {
            Some(property) => {
                misfits(document, property, member, &format!("{at}.{name}"), found);
            }
            None => found.push(format!("{at}.{name} is not in the document")),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(name) {
            found.push(format!("{at}.{name} is missing"));
        }
    }
}

/// Answers of one service, held against its document.
struct Held {
    document: Value,
    /// The operations and statuses met.
    met: BTreeSet<String>,
}

impl Held {
    fn hold(&mut self, method: &str, route: &str, response: &Response) {
        let answers = &self.document["paths"][route][method.to_ascii_lowercase()]["responses"];
        let status = response.status.to_string();
        let named = answers.get(&status).or_else(|| answers.get("default"));
        let answer = named.unwrap_or_else(|| panic!("{method} {route} {status} is not described"));
        self.met.insert(format!("{method} {route} {}", response.status));
        let media = response.header("content-type").unwrap_or_default();
        let (media, _) = media.split_once(';').unwrap_or((media, ""));
        let Some(content) = answer.get("content") else {
            assert!(response.body.is_empty(), "{method} {route} {status} has a body");
            return;
        };
        let content = content.get(media);
        let content = content.unwrap_or_else(|| panic!("{method} {route} {status}: {media}"));
        if media.ends_with("json") && media != "application/x-ndjson" {
            let mut found = Vec::new();
            misfits(&self.document, &content["schema"], &response.json(), route, &mut found);
            assert!(found.is_empty(), "{method} {route} {status}: {found:#?}");
        }
        for (name, _) in answer["headers"].as_object().into_iter().flatten() {
            let always = matches!(name.as_str(), "ETag" | "WWW-Authenticate" | "Retry-After");
            assert!(!always || response.header(name).is_some(), "{method} {route}: {name}");
        }
    }
}

/// Something of everything: a run that failed and said why, log rows, events, a page that is not the last.
fn fill(client: &mut Client, held: &mut Held) {
    let named = [("X-Sentinel-Process-Id", "p")];
    for (verb, body) in [
        ("register", json!({"process_name": "P", "process_type": "import"})),
        (
            "start",
            json!({"package_name": "K", "heartbeat_interval_s": 0.5, "metadata": {"rows": 1}}),
        ),
        ("progress", json!({"current_step": "A", "progress_percent": 12.5})),
        ("heartbeat", json!({"message": "here"})),
        ("pause", json!({})),
        ("resume", json!({})),
        ("error", json!({"error_code": -20001, "error_message": "no", "stack_trace": "at"})),
        ("start", json!({})),
        ("complete", json!({"result": [1]})),
    ] {
        let (path, body) = (format!("/internal/{verb}"), body.to_string());
        let answer = client.request("POST", &path, &named, body.as_bytes()).expect(202);
        held.hold("POST", &path, &answer);
    }
    let rows = json!([
        {"message": "plain"},
        {"level": "ERROR", "message": "m", "event_type": "e", "component": "c", "details": {"a": 1}, "stack_trace": "s",
         "duration_us": 5, "correlation_id": "x", "trace_id": "t", "span_id": "u"},
    ]);
    let rows = client.request("POST", "/internal/log", &named, rows.to_string().as_bytes());
    held.hold("POST", "/internal/log", &rows.expect(202));
    // Dated long ago, so that it is told that the clocks differ.
    let mut old = envelope(1, "s", json!({"n": 1}));
    old["timestampUtc"] = json!("2020-01-01T00:00:00Z");
    held.hold("POST", "/v1/events", &client.event("k1", &old).expect(202));
    let again = client.event("k1", &old).expect(202);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    held.hold("POST", "/v1/events", &again);
    let cloud = |id: &str| json!({"specversion": "1.0", "id": id, "source": "/c", "type": "t"});
    for batch in [json!([cloud("1"), cloud("2")]), json!([cloud("3"), 5])] {
        let media = [("Content-Type", "application/cloudevents-batch+json")];
        let answer = client.request("POST", "/v1/events", &media, batch.to_string().as_bytes());
        held.hold("POST", "/v1/events", &answer);
    }
    for lines in ["{}\n", &envelope(2, "s", json!({})).to_string()] {
        let media = [("Content-Type", "application/x-ndjson")];
        let answer = client.request("POST", "/v1/events", &media, lines.as_bytes());
        held.hold("POST", "/v1/events", &answer);
    }
    let row = json!({"eventId": envelope(3, "p", json!({}))["eventId"], "source": "s", "type": "process.log",
        "streamKey": "p", "payload": {"message": "as an event"}});
    held.hold("POST", "/v1/events", &client.event("k3", &row).expect(202));
    eventually("everything is applied", || {
        let seq = client.get("/v1/streams/s");
        (seq.status == 200 && seq.json()["appliedSeq"] == 2).then_some(())
    });
}

#[test]
fn every_answer_is_the_one_that_the_document_describes() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let mut client = service.client("demo");
    let document = client.get("/openapi.json").expect(200).json();
    let mut held = Held { document, met: BTreeSet::new() };
    fill(&mut client, &mut held);
    for (route, path) in [
        ("/", "/"),
        ("/health", "/health"),
        ("/ready", "/ready"),
        ("/metrics", "/metrics"),
        ("/openapi.json", "/openapi.json"),
        ("/problems/{name}", "/problems/not-found"),
        ("/problems/{name}", "/problems/nonsense"),
        ("/status/{id}", "/status/p"),
        ("/status/{id}", "/status/nobody"),
        ("/processes", "/processes?status=all&limit=1"),
        ("/processes", "/processes?limit=0"),
        ("/processes/{id}/runs", "/processes/p/runs"),
        ("/logs/{id}", "/logs/p"),
        ("/v1/events", "/v1/events?limit=1000"),
        ("/v1/events/{id}", "/v1/events/1"),
        ("/v1/streams/{key}", "/v1/streams/s"),
        ("/v1/streams/{key}/events", "/v1/streams/s/events?limit=1"),
        ("/v1/streams/{key}/events", "/v1/streams/s/events?after=99&wait=0s"),
        ("/v1/dead-letters", "/v1/dead-letters"),
        ("/v1/dead-letters/{id}", "/v1/dead-letters/1"),
    ] {
        held.hold("GET", route, &client.get(path));
    }
    for accept in ["application/x-ndjson", "text/event-stream"] {
        let answer = client.request("GET", "/logs/p?follow=false", &[("Accept", accept)], b"");
        held.hold("GET", "/logs/{id}", &answer.expect(200));
    }
    let tag = client.get("/status/p").header("etag").unwrap().to_owned();
    let same = client.request("GET", "/status/p", &[("If-None-Match", &tag)], b"").expect(304);
    held.hold("GET", "/status/{id}", &same);
    held.hold(
        "GET",
        "/processes",
        &Client::new(service.service.api_address(), "").get("/processes"),
    );
    let accept = [("Accept", "application/openmetrics-text; version=1.0.0")];
    held.hold("GET", "/metrics", &client.request("GET", "/metrics", &accept, b"").expect(200));
    for route in ROUTES {
        let (method, path) = (route.method.as_str(), route.path);
        let met = |status: u16| held.met.contains(&format!("{method} {path} {status}"));
        // Dead letters are made by what no door lets in: here there is none to look at.
        assert!(met(200) || met(202) || path == "/v1/dead-letters/{id}", "{method} {path}");
    }
    service.stop();
}

#[test]
fn a_dead_letter_is_the_one_that_the_document_describes() {
    let folder = tempfile::tempdir().unwrap();
    let parts = Parts { listener: false, ..Parts::ALL };
    let service = InProcess::start(folder.path(), wall_clock(), parts, &[]);
    service.client("demo").event("k1", &envelope(1, "s", json!({}))).expect(202);
    service.stop();
    let log = rusqlite::Connection::open(folder.path().join("log.db")).unwrap();
    log.execute("UPDATE log SET body = x'ff00'", []).unwrap();
    drop(log);
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let admin = token(folder.path(), "demo", &["sentinel:admin"]);
    let mut client = Client::new(service.service.api_address(), &admin);
    let document = client.get("/openapi.json").expect(200).json();
    let mut held = Held { document, met: BTreeSet::new() };
    let letters = eventually("the dead letter", || {
        let letters = client.get("/v1/dead-letters?tenant=%23none").expect(200);
        (letters.json()["dead_letters"].as_array().map_or(0, Vec::len) == 1).then_some(letters)
    });
    held.hold("GET", "/v1/dead-letters", &letters);
    let id = letters.json()["dead_letters"][0]["id"].to_string();
    let letter = client.get(&format!("/v1/dead-letters/{id}?tenant=%23none")).expect(200);
    held.hold("GET", "/v1/dead-letters/{id}", &letter);
    service.stop();
}
