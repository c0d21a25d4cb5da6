//! Whom the service lets in, with which certificate, and what it says of them. Rights come from tokens; a certificate
//! opens some doors to them and is a name in the log.

use base64::Engine;
use rcgen::date_time_ymd;
use sentinel::certificates::thumbprint;
use sentinel::routes::table::{ROUTES, Scope};
use serde_json::json;

use super::{Authority, BASE64, House, Tls, World, request};
use crate::harness::read_response;

#[test]
fn each_route_wants_the_certificate_and_the_token_that_the_table_says() {
    let world = World::start("optional");
    let (known, token) = (world.around.client(), world.around.token());
    let document = world.connect(None).get("/openapi.json", "").expect(200).json();
    assert_eq!(document["components"]["securitySchemes"]["mutualTLS"]["type"], "mutualTLS");
    for route in ROUTES {
        let method = route.method.as_str().to_ascii_lowercase();
        let security = &document["paths"][route.path][&method]["security"][0];
        for shown in [None, Some(&known)] {
            for token in ["", token.as_str()] {
                let path: Vec<&str> = route
                    .path
                    .split('/')
                    .map(|s| if s.starts_with('{') { "x" } else { s })
                    .collect();
                let path = path.join("/");
                let mut tls = world.connect(shown);
                tls.send(request(route.method.as_str(), &path, token, "", "").as_bytes()).unwrap();
                let response = read_response(&mut tls.0, false).unwrap();
                let of_certificate = response.status == 403
                    && response.json()["type"] == "/problems/client-certificate-required";
                let case =
                    format!("{} {path} {} {}", route.method, shown.is_some(), !token.is_empty());
                let documented = (security["mutualTLS"].is_array(), security["bearer"].is_array());
                assert_eq!(documented.0, route.certificate, "{case}: {security}");
                assert_eq!(
                    of_certificate,
                    route.certificate && shown.is_none(),
                    "{case}: {}",
                    response.text()
                );
                let wants_token = match route.scope {
                    Scope::Open | Scope::Scrape => false,
                    Scope::Read | Scope::Write | Scope::Operate => true,
                };
                assert_eq!(documented.1, wants_token, "{case}: {security}");
                let refused = !of_certificate && wants_token && token.is_empty();
                assert_eq!(response.status == 401, refused, "{case}: {}", response.text());
            }
        }
    }
    world.service.stop();
}

#[test]
fn a_certificate_that_is_required_is_required_and_a_foreign_one_never_gets_in() {
    for client_auth in ["optional", "required"] {
        let world = World::start(client_auth);
        let foreign = Authority::new().sign("billing");
        world.connect(Some(&foreign)).try_get("/health", "").unwrap_err();
        world.connect(Some(&world.around.client())).get("/health", "").expect(200);
        let without = world.connect(None).try_get("/health", "");
        assert_eq!(without.is_ok(), client_auth == "optional");
        world.service.stop();
    }
}

#[test]
fn the_metrics_port_wants_a_certificate_and_no_token() {
    let world = World::start("off");
    let address = world.service.service.metrics_address().unwrap();
    let known = world.around.client();
    let metrics = Tls::connect(address, &world.around.authority, Some(&known)).get("/metrics", "");
    assert!(metrics.expect(200).text().contains("sentinel_"));
    Tls::connect(address, &world.around.authority, None).try_get("/metrics", "").unwrap_err();
    // The API does not ask: its routes go by tokens alone.
    world.connect(None).get("/metrics", "").expect(401);
    world.connect(None).get("/metrics", &world.around.token()).expect(200);
    world.service.stop();
}

#[test]
fn a_bound_token_is_taken_from_the_holder_of_its_certificate_only() {
    let world = World::start("optional");
    let (own, other) = (world.around.client(), world.around.client());
    let digest = BASE64.encode(thumbprint(own.0.der()));
    let bound = world.around.issuer.token(json!({"cnf": {"x5t#S256": digest}}));
    // Twice, because the second time the token is remembered.
    for _ in 0..2 {
        world.connect(Some(&own)).get("/processes", &bound).expect(200);
        world.connect(Some(&other)).get("/processes", &bound).expect(401);
        world.connect(None).get("/processes", &bound).expect(401);
    }
    let broken = world.around.issuer.token(json!({"cnf": {"x5t#S256": "x"}}));
    world.connect(Some(&own)).get("/processes", &broken).expect(401);
    world.service.stop();
}

#[test]
fn a_certificate_that_is_out_of_date_does_not_get_in() {
    let world = World::start("optional");
    for (from, until) in [(2020, 2021), (2090, 2099)] {
        let pair = world.around.clients.sign_with("billing", |params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
        });
        world.connect(Some(&pair)).try_get("/health", "").unwrap_err();
    }
    world.connect(Some(&world.around.client())).get("/health", "").expect(200);
    world.service.stop();
}

#[test]
fn the_subject_of_a_certificate_is_a_name_in_the_log_and_stands_in_for_no_token() {
    let house = House::start("optional");
    let forgery = "billing\u{1b}[31m\r\n{\"level\":\"ERROR\",\"msg\":\"forged\"}\u{202e},O=Others";
    let shown =
        r#"CN=billing\u{1b}[31m\u{d}\u{a}{"level":"ERROR"\,"msg":"forged"}\u{202e}\,O=Others"#;
    let pair = house.around.clients.sign(forgery);
    let _ = house.service.said();
    let mut guest = house.connect(Some(&pair));
    for (path, status) in [("/processes", 401), ("/status/p", 401), ("/health", 200)] {
        guest.get(path, "").expect(status);
    }
    let record = house.service.says("a client has shown a certificate");
    assert_eq!(record["subject"], shown);
    assert_eq!(record["peer"], "127.0.0.1");
    assert_eq!(record["level"], "INFO");
    // With a token the same certificate opens the door.
    guest.get("/processes", &house.token).expect(200);
    // A certificate whose key is another's, or whose authority is, is a stranger's: no name of it is in the log.
    let strangers = Authority::new().sign("stranger");
    house.connect(Some(&strangers)).try_get("/health", "").unwrap_err();
    let refused = house.service.says("came to nothing");
    assert!(!refused.to_string().contains("stranger"), "{refused}");
    for record in house.service.said() {
        assert_ne!(record["msg"], "forged");
        assert!(!record.to_string().contains("stranger"), "{record}");
    }
    house.stop();
}
