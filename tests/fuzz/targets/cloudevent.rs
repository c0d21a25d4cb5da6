//! The fuzz target `cloudevent`. This module hands what libFuzzer makes up to the promises of the same name.
#![no_main]

#[path = "../promises/cloudevent.rs"]
mod cloudevent;

libfuzzer_sys::fuzz_target!(|data: &[u8]| cloudevent::check(data));
