//! One binary, three names.

use std::process::ExitCode;

use opmas::process::{Role, role};

fn main() -> ExitCode {
    let mut args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let name = args.next().unwrap_or_default();
    match role(&name) {
        Some(Role::Worker) => opmas::playbook::worker::main(&args.collect::<Vec<_>>()),
        Some(Role::Executor) => opmas::executor::main(&args.collect::<Vec<_>>(), &opmas::config::shipped_actions()),
        None => opmas::cli::main(),
    }
}
