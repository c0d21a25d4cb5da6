//! What the stand-in promises, through the real `oracle` crate and the real ODPI-C.

#[path = "../../it/oracle_standin.rs"]
mod oracle_standin;
mod promises;
