//! Two tenants may use one id and never notice each other. This module fills tenants and walks the route table.

use sentinel::routes::table::{Action, ROUTES, Scope};
use serde_json::{Value, json};

use crate::harness::{Client, envelope, eventually};

/// Gives a client for a tenant and a role, at any door.
pub(crate) type Clients<'c> = &'c dyn Fn(&str, &str) -> Client;

/// The role that may do everything within its tenant.
const ALL: &str = "sentinel:operate";

/// Fills one tenant with one of everything, under the same names for all.
fn fill(client: &mut Client, mark: &str) {
    client.event("the-key", &envelope(1, "the-stream", json!({ "of": mark }))).expect(202);
    let fields = [("X-Sentinel-Process-Id", "the-process")];
    let body = json!({"process_name": mark, "event_id": "the-event"}).to_string();
    client.request("POST", "/internal/start", &fields, body.as_bytes()).expect(202);
    let body = json!({"message": mark}).to_string();
    client.request("POST", "/internal/log", &fields, body.as_bytes()).expect(202);
    eventually("the events are applied", || {
        let of = |client: &mut Client, stream: &str| {
            client.get(&format!("/v1/streams/{stream}/events")).status == 200
        };
        (of(client, "the-stream") && of(client, "the-process")).then_some(())
    });
    let listed = client.get("/processes?status=all").json();
    assert_eq!(listed["processes"].as_array().unwrap().len(), 1, "{listed}");
}

/// `status`: what `/status` tells of a process once what was acknowledged with this number counts.
pub(crate) fn two_tenants_use_the_same_names_and_never_see_block_or_alter_each_other(
    clients: Clients<'_>,
    status: impl Fn(&mut Client, &str, u64) -> Value,
) {
    let (mut a, mut b) = (clients("tenant-a", ALL), clients("tenant-b", ALL));
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
    let ended = a.request("POST", "/internal/complete", &fields, b"").expect(202).json();
    let seen = ended["streamSeq"].as_u64().unwrap();
    assert_eq!(status(&mut a, "the-process", seen)["status"], "COMPLETED");
    assert_eq!(b.get("/status/the-process").json()["status"], "RUNNING");
}

pub(crate) fn every_route_answers_404_to_another_tenants_ids(clients: Clients<'_>) {
    let (mut owner, mut stranger) = (clients("owner", ALL), clients("stranger", ALL));
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
}

/// `is_open`: whether a route of this scope takes nobody's token.
pub(crate) fn every_route_but_the_open_ones_needs_a_token_and_its_role(
    clients: Clients<'_>,
    is_open: impl Fn(Scope) -> bool,
) {
    let mut reading = clients("demo", "sentinel:read");
    for route in ROUTES {
        let path =
            route.path.replace("{id}", "x").replace("{key}", "x").replace("{name}", "not-found");
        let response = reading.with_token("").request(route.method.as_str(), &path, &[], b"");
        let open = is_open(route.scope);
        assert_eq!(response.status == 401, !open, "{path}: {}", response.text());
        if !open {
            assert!(response.header("www-authenticate").is_some(), "{path}");
            let mut garbage = reading.with_token("a.b.c");
            let refused = garbage.request(route.method.as_str(), &path, &[], b"");
            assert_eq!(refused.status, 401, "{path}");
            assert_eq!(refused.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
        }
        if route.scope == Scope::Write {
            let refused = reading.request(route.method.as_str(), &path, &[], b"").expect(403);
            assert_eq!(refused.json()["type"], "/problems/forbidden");
        }
    }
}

pub(crate) fn an_admin_names_the_tenant_and_nobody_else_may(clients: Clients<'_>) {
    let (mut named, mut stranger) = (clients("named", ALL), clients("stranger", ALL));
    fill(&mut named, "secret");
    let mut admin = clients("ops", "sentinel:admin");
    admin.get("/status/the-process").expect(404);
    admin.get("/status/the-process?tenant=named").expect(200);
    stranger.get("/status/the-process?tenant=named").expect(403);
    // However the name of the parameter is written.
    admin.get("/status/the-process?%74enan%74=named").expect(200);
    stranger.get("/status/the-process?%74enan%74=named").expect(403);
    named.get("/status/the-process?tenant=named").expect(200);
    let mut event = envelope(9, "s", json!({}));
    event["tenantId"] = json!("named");
    let mismatch = stranger.event("k", &event).expect(403).json();
    assert_eq!(mismatch["type"], "/problems/tenant-mismatch");
}
