//! Two tenants may use one id and never notice each other: on the embedded store.

use sentinel::routes::table::Scope;
use sentinel::service::{Parts, wall_clock};

use crate::harness::{Client, InProcess, token};
use crate::promises::tenancy as promises;

/// Holds a promise by a service of its own.
fn held(promise: impl FnOnce(promises::Clients<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    let service = InProcess::start(folder.path(), wall_clock(), Parts::ALL, &[]);
    let address = service.service.api_address();
    promise(&|tenant, role| Client::new(address, &token(folder.path(), tenant, &[role])));
    service.stop();
}

#[test]
fn two_tenants_use_the_same_names_and_never_see_block_or_alter_each_other() {
    held(|clients| {
        promises::two_tenants_use_the_same_names_and_never_see_block_or_alter_each_other(
            clients,
            // What is acknowledged is seen at once.
            |client, process, _| client.get(&format!("/status/{process}")).expect(200).json(),
        );
    });
}

#[test]
fn every_route_answers_404_to_another_tenants_ids() {
    held(promises::every_route_answers_404_to_another_tenants_ids);
}

#[test]
fn every_route_but_the_open_ones_needs_a_token_and_its_role() {
    held(|clients| {
        promises::every_route_but_the_open_ones_needs_a_token_and_its_role(clients, |scope| {
            matches!(scope, Scope::Open | Scope::Scrape)
        });
    });
}

#[test]
fn an_admin_names_the_tenant_and_nobody_else_may() {
    held(promises::an_admin_names_the_tenant_and_nobody_else_may);
}
