//! The domain: what an event, a process and a run are, and how events become state. This module is pure.
//!
//! Nothing below it does I/O, reads a clock or starts a thread (law 10). Times come in as arguments.

pub mod apply;
pub mod canonical;
pub mod cloudevents;
pub mod dead_letter;
pub mod door;
pub mod event;
pub mod fields;
pub mod history;
pub mod ids;
pub mod log_row;
pub mod process;
pub mod report;
pub mod time;
