//! The binary `keyholder`: parse, configure, dispatch.

use std::process::ExitCode;

/// Faster than the system's with many small blocks (docs/dev/decisions.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keyholder::cli::main()
}
