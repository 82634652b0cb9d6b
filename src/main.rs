//! One binary, three names.

use std::process::ExitCode;

fn main() -> ExitCode {
    opmas::cli::main()
}
