//! The fuzz target `envelope`. This module hands what libFuzzer makes up to the promises of the same name.
#![no_main]

#[path = "../promises/envelope.rs"]
mod envelope;

libfuzzer_sys::fuzz_target!(|data: &[u8]| envelope::check(data));
