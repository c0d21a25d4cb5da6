//! What makes its reader stumble goes aside, whole, and nobody else is hurt by it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sentinel::service::{Parts, wall_clock};
use serde_json::json;

use super::{Site, applied_once, post_lines};
use crate::harness::{Client, eventually};
use crate::promises::poison as promises;

#[test]
fn a_panic_while_applying_is_one_dead_letter_and_no_restart() {
    let Some(site) = Site::start() else { return };
    let parts = Parts { listener: false, ..Parts::ALL };
    let service = site.in_process(wall_clock(), parts, &[]);
    let mut client = site.client_at(service.service.api_address(), "demo");
    promises::a_panic_while_applying_is_one_dead_letter_and_no_restart(&service, &mut client);
    service.stop();
}

#[test]
fn a_message_that_is_no_event_is_kept_for_an_admin_and_the_others_are_applied() {
    let Some(site) = Site::start() else { return };
    let instance = site.instance(&[]);
    let mut client = site.client(&instance, "demo");
    // Between good ones, so that they are taken with it.
    post_lines(&mut client, 0..5).expect(202);
    site.standin.sql(
        "INSERT INTO standin.message (event_id, event_type, process_id, tenant_id, priority, payload) \
         VALUES ('E1', 'ENVELOPE', 'p', 'demo', 5, 'no JSON, but 27 bytes of it')",
    );
    post_lines(&mut client, 5..10).expect(202);
    applied_once(&site, 10);
    let token = site.issuer.token(json!({"tenant_id": "demo", "roles": ["sentinel:admin"]}));
    let mut admin = Client::new(instance.api, &token);
    let letters = eventually("it is set aside", || {
        let letters = admin.get("/v1/dead-letters?tenant=%23none").expect(200).json();
        letters["dead_letters"].as_array().filter(|letters| !letters.is_empty()).cloned()
    });
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(
        (&letters[0]["reason"], &letters[0]["tenantId"]),
        (&json!("undecodable"), &json!("#none"))
    );
    let path = format!("/v1/dead-letters/{}?tenant=%23none", letters[0]["id"]);
    let whole = admin.get(&path).expect(200).json();
    let bytes = whole["event"]["bytes_base64"].as_str().expect("bytes");
    let bytes = BASE64_STANDARD.decode(bytes).expect("base64");
    let kept: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(kept["payload"], "no JSON, but 27 bytes of it", "{kept}");
    assert_eq!(kept["process_id"], "p", "{kept}");
    // Nobody else sees whose it was.
    assert_eq!(client.get("/v1/dead-letters").expect(200).json()["dead_letters"], json!([]));
    client.get(&path).expect(403);
    assert_eq!(instance.terminate(), 0);
}
