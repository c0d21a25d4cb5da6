//! The fuzz target `token`. This module hands what libFuzzer makes up to the promises of the same name.
#![no_main]

#[path = "../promises/token.rs"]
mod token;

libfuzzer_sys::fuzz_target!(|data: &[u8]| token::check(data));
