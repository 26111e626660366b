//! The binary `keyholder`: parse, configure, dispatch.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyholder::cli::main()
}
