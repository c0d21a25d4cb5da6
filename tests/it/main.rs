//! What users are promised, held by tests. This module lists them, each named after a promise.
//!
//! Everything here goes through the program or its public modules; there is one test program, so that it is linked
//! once.

#![cfg(test)]

// The API as it describes itself.
mod api_document;
// What `sentinel run` does for a command, and never does to it.
mod a_watched_command;
// Who takes traces in tests.
mod collector;
// A store, step by step.
mod by_hand;
// Damaged and mismatched files.
mod damage;
// One machine and its owner.
mod development;
// Once, in order, and the same answer again.
mod delivery;
// What is shipped to run it.
mod deployment;
// No space, no right to write.
mod disk;

mod doctor;
// A service that answers as a test tells it to.
mod fairness;
mod fake_service;
// What is new, as it commits.
mod follow;
// How the ports behave, whatever comes in.
mod front;
// Clients that mean no good.
mod hostile_clients;
// What the fuzzer has found, again.
mod fuzz_corpus;
// How the service is started, driven and spoken to; only this module knows.
mod harness;
// Tokens of a real provider, and what becomes of it.
mod identity_provider;
// Signs what a test claims.
mod issuer;
// Backups of a service at work, and the end of a tenant.
mod keeping_house;
// kill -9 at random instants.
mod ledger;
// How the service comes and goes.
mod lifecycle;
// Every number that is scraped.
mod metrics;
// What an operator sees of a process.
mod monitoring;
// An Oracle address without a database.
mod oracle_client;
// The Oracle store against a server.
mod oracle_live;
// The schema of an Oracle store, made and left alone.
mod oracle_migrate;
// The whole service on the stand-in: what a user is promised with an Oracle address too.
mod oracle_rehearsal;
// A stand-in for Oracle's client library, over PostgreSQL.
mod oracle_standin;
// A backlog, true silence, and who comes back.
mod outage;
// A panic and bytes that are no event.
mod poison;
// Full queues and bounded memory.
mod pressure;
// What no Oracle server is here to say about its scripts.
mod plsql_grammar;
// Every kind of problem, met.
mod problems;
// What is promised whatever the store.
mod promises;
// What a statement costs as data grows.
mod query_plans;
// No token, password or payload in any line.
mod secrets;
// What every store must do.
mod store_contract;
// Two tenants and one name.
mod tenancy;
// What the README promises.
mod readme;
// What is seen on a terminal.
mod watching;
// Rules that hold for every file of the repository.
mod tidy;
// Certificates, shown and asked for.
mod tls;
// Each event a trace, and no waiting for a collector.
mod traces;
