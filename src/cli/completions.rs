//! `opmas completions`: what a shell completes after `opmas`.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Done, Exit};

/// Arguments of `opmas completions`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The shell that will read it.
    shell: Known,
}

/// The shells that people have on the machines where opmas runs.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(arguments: &Arguments) -> Done {
    let shell = match arguments.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut super::Arguments::command(), "opmas", &mut text);
    super::print(&mut io::stdout().lock(), &text)?;
    Ok(Exit::Done)
}
