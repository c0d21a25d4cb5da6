//! Process Sentinel knows what every long-running process is doing, wherever it runs, keeps the history, tells when
//! one is lost, and loses nothing itself. This module is the map, in the order in which data travels.
//!
//! Everything that happens is an event in a stream. An event is durable before it is acknowledged ([`intake`]), is
//! applied exactly once ([`listener`]), and is then seen by everybody ([`view`], [`routes`]). The ground state is
//! the log of events; status, runs, counters and statistics are derived. `docs/ARCHITECTURE.md` tells it in full.
//!
//! No code here is unsafe, without an exception: what must be is done by crates whose business it is (rustix, mio,
//! rusqlite, ring).

#![forbid(unsafe_code)]

// domain: no I/O, no clock, no threads.
pub mod domain;
// ground: what the threads stand on.
pub mod certificates;
pub mod component;
pub mod config;
pub mod live;
pub mod mailbox;
pub mod room;
pub mod store;
pub mod telemetry;
// way in.
pub mod intake;
pub mod listener;
// threads.
pub mod exporter;
pub mod keeper;
pub mod log_writer;
pub mod reaper;
pub mod tail;
// way out.
pub mod view;
// face.
pub mod http;
pub mod routes;
// frame.
pub mod cli;
pub mod service;
