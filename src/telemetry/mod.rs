//! What the service says about itself. This module holds its metrics and its own log.

pub mod exposition;
pub mod logging;
pub mod metrics;
pub mod process;
