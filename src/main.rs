//! The program. This module picks the allocator and hands over to the command line.

use std::process::ExitCode;

/// Small allocations from many threads are what the service does all day; this allocator is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sentinel::cli::main()
}
