//! A stand-in for Oracle's client library. It is NOT Oracle, and nothing in it comes from Oracle.
//!
//! ODPI-C, which is in the `oracle` crate, loads a `libclntsh.so` and calls the functions of Oracle's call interface in
//! it. This library has those functions, over PostgreSQL, so that the project's own code runs through the real crate and
//! the real ODPI-C in its tests. It was written from ODPI-C's public declarations of them. It is test support: it is
//! never installed and never shipped.

// Errors, numbers, times, and PostgreSQL's protocol.
mod errors;
mod moment;
mod number;
mod wire;

// What a test steers and counts.
mod faults;
mod place;
mod trips;

// Oracle's SQL, sessions, and what the caller holds pointers to.
mod handles;
mod session;
mod sql;
mod statement;
mod values;

// Our own PL/SQL, by name.
mod procedures;

// The functions that ODPI-C calls.
mod oci;
