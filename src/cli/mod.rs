//! (being written)
pub mod load;
