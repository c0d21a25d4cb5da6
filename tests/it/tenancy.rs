//! Two tenants may use one id and never notice each other.

use sentinel::routes::table::{Action, ROUTES, Scope};
use sentinel::service::{Parts, wall_clock};
use serde_json::{Value, json};

use crate::harness::{Client, InProcess, envelope, eventually, token};

/// Fills one tenant with one of everything, under the same names for all.
fn fill(client: &mut Client, mark: &str) {
    client.event("the-key", &envelope(1, "the-stream", json!({ "of": mark }))).expect(202);
    let fields = [("X-Sentinel-Process-Id", "the-process")];
    let body = json!({"process_name": mark, "event_id": "the-event"}).to_string();
    client.request("POST", "/internal/start", &fields, body.as_bytes()).expect(202);
    let body = json!({"message": mark}).to_string();
    client.request("POST", "/internal/log", &fields, body.as_bytes()).expect(202);
    eventually("the events are applied", || {
        let listed =
            client.get("/processes?status=all").json()["processes"].as_array().map_or(0, Vec::len);
        (client.get("/v1/streams/the-stream/events").status == 200 && listed == 1).then_some(())
    });
}

#[test]
fn two_tenants_use_the_same_names_and_never_see_block_or_alter_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let (mut a, mut b) = (service.client("tenant-a"), service.client("tenant-b"));
    fill(&mut a, "of-a");
    fill(&mut b, "of-b");
    for (client, own, foreign) in [(&mut a, "of-a", "of-b"), (&mut b, "of-b", "of-a")] {
        for path in [
            "/status/the-process",
            "/processes?status=all",
            "/processes/the-process/runs",
            "/logs/the-process",
            "/v1/events",
            "/v1/events/the-event",
            "/v1/streams/the-stream/events",
            "/v1/streams/the-process/events",
        ] {
            let response = client.get(path).expect(200);
            assert!(!response.text().contains(foreign), "{path}: {}", response.text());
            let body = response.json();
            for list in ["processes", "runs", "logs", "events"] {
                if let Some(rows) = body[list].as_array() {
                    assert!(!rows.is_empty(), "{path}");
                }
            }
        }
        assert_eq!(
            client.get("/v1/streams/the-stream/events").json()["events"][0]["payload"]["of"],
            own
        );
    }
    // The end of one is not the end of the other.
    let fields = [("X-Sentinel-Process-Id", "the-process")];
    a.request("POST", "/internal/complete", &fields, b"").expect(202);
    assert_eq!(a.get("/status/the-process").json()["status"], "COMPLETED");
    assert_eq!(b.get("/status/the-process").json()["status"], "RUNNING");
    service.stop();
}

#[test]
fn every_route_answers_404_to_another_tenants_ids() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let (mut owner, mut stranger) = (service.client("owner"), service.client("stranger"));
    fill(&mut owner, "secret");
    let mut walked = 0;
    for route in ROUTES.iter().filter(|route| route.scope == Scope::Read) {
        let name = match route.action {
            Action::Status | Action::Runs | Action::Logs => "the-process",
            Action::Stream | Action::StreamEvents => "the-stream",
            Action::Event => "the-event",
            Action::DeadLetter => "1",
            _ => "",
        };
        let path: Vec<&str> = route
            .path
            .split('/')
            .map(|segment| if segment.starts_with('{') { name } else { segment })
            .collect();
        let path = path.join("/");
        let response = stranger.get(&path);
        assert!(!response.text().contains("secret"), "{path}");
        if route.path.contains('{') {
            assert_eq!(response.status, 404, "{path}: {}", response.text());
            if route.action != Action::DeadLetter {
                owner.get(&path).expect(200);
            }
        } else {
            let body = response.expect(200).json();
            let lists = ["processes", "events", "dead_letters"];
            assert!(
                lists.iter().filter_map(|list| body[*list].as_array()).all(Vec::is_empty),
                "{path}: {body}"
            );
        }
        walked += 1;
    }
    assert!(walked >= 9, "the table has lost its routes");
    service.stop();
}

#[test]
fn every_route_but_the_open_ones_needs_a_token_and_its_role() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let address = service.service.api_address();
    let reader = token(folder.path(), "demo", &["sentinel:read"]);
    for route in ROUTES {
        let path =
            route.path.replace("{id}", "x").replace("{key}", "x").replace("{name}", "not-found");
        let mut nobody = Client::new(address, "");
        let response = nobody.request(route.method.as_str(), &path, &[], b"");
        let open = matches!(route.scope, Scope::Open | Scope::Scrape);
        assert_eq!(response.status == 401, !open, "{path}: {}", response.text());
        if !open {
            assert!(response.header("www-authenticate").is_some(), "{path}");
            let mut garbage = Client::new(address, "a.b.c");
            let refused = garbage.request(route.method.as_str(), &path, &[], b"");
            assert_eq!(refused.status, 401, "{path}");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
        }
        if route.scope == Scope::Write {
            let mut reading = Client::new(address, &reader);
            let refused = reading.request(route.method.as_str(), &path, &[], b"").expect(403);
            assert_eq!(refused.json()["type"], "/problems/forbidden");
        }
    }
    service.stop();
}

#[test]
fn an_admin_names_the_tenant_and_nobody_else_may() {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    fill(&mut service.client("owner"), "secret");
    let address = service.service.api_address();
    let mut admin = Client::new(address, &token(folder.path(), "ops", &["sentinel:admin"]));
    admin.get("/status/the-process").expect(404);
    admin.get("/status/the-process?tenant=owner").expect(200);
    service.client("stranger").get("/status/the-process?tenant=owner").expect(403);
    service.client("owner").get("/status/the-process?tenant=owner").expect(200);
    let mismatch: Value = {
        let mut event = envelope(9, "s", json!({}));
        event["tenantId"] = json!("owner");
        service.client("stranger").event("k", &event).expect(403).json()
    };
    assert_eq!(mismatch["type"], "/problems/tenant-mismatch");
    service.stop();
}
