//! What the stand-in promises, through the real `oracle` crate and the real ODPI-C.

#![cfg(test)]

#[path = "../../it/oracle_standin.rs"]
mod oracle_standin;
mod promises;
