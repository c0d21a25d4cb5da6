//! Two tenants may use one id and never notice each other, whichever instances they ask.

use std::cell::Cell;

use sentinel::routes::table::Scope;
use serde_json::json;

use super::{Site, end};
use crate::harness::{Client, eventually};
use crate::promises::tenancy as promises;

#[test]
fn two_tenants_never_notice_each_other_at_two_instances() {
    let Some(site) = Site::start() else { return };
    let instances = [site.instance(&[]), site.instance(&[])];
    let given = Cell::new(0);
    // Each client is of the next instance, so what one tenant says comes in by another door than what the other asks.
    let clients = |tenant: &str, role: &str| {
        let instance = &instances[given.replace(given.get() + 1) % instances.len()];
        Client::new(instance.api, &site.issuer.token(json!({"tenant_id": tenant, "roles": [role]})))
    };
    promises::two_tenants_use_the_same_names_and_never_see_block_or_alter_each_other(
        &clients,
        |client, process, seen| {
            eventually("the end is applied", || {
                let stream = client.get(&format!("/v1/streams/{process}")).expect(200).json();
                (stream["appliedSeq"].as_u64()? >= seen).then_some(())
            });
            client.get(&format!("/status/{process}")).expect(200).json()
        },
    );
    promises::every_route_answers_404_to_another_tenants_ids(&clients);
    // With an identity provider, who scrapes the API's port needs a token too.
    promises::every_route_but_the_open_ones_needs_a_token_and_its_role(&clients, |scope| {
        scope == Scope::Open
    });
    promises::an_admin_names_the_tenant_and_nobody_else_may(&clients);
    instances.into_iter().for_each(end);
}
