//! (being written)

mod connection;
mod folder;
mod idempotency;
mod intake;
mod log;
mod numbers;
mod overlay;
mod wal;
