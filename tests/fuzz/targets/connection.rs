//! The fuzz target `connection`. This module hands what libFuzzer makes up to the promises of the same name.
#![no_main]

#[path = "../promises/connection.rs"]
mod connection;

libfuzzer_sys::fuzz_target!(|data: &[u8]| connection::check(data));
