//! What users see of the store's rows. This module gives each kind of row its public JSON shape.

pub mod dead_letter;
pub mod event;
pub mod json;
pub mod log_row;
pub mod process;
