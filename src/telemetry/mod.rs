//! What the service says about itself. This module holds its metrics, its traces and its own log.

pub mod exposition;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod traces;
