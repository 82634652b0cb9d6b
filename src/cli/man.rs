//! `opmas man`: the manual pages, made of what `--help` says.

use std::io;
use std::path::PathBuf;

use clap::CommandFactory;

use super::{Done, Exit, Failure};

/// Arguments of `opmas man`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Write a page for every command into this folder, which is made when it is not there; without it, opmas.1 goes to standard output.
    dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Done {
    // `opmas help` says what these pages say.
    let command = super::Arguments::command().disable_help_subcommand(true);
    let Some(dir) = &arguments.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(|error| Failure::new(Exit::Unreachable, error))?;
        super::print(&mut io::stdout().lock(), &page)?;
        return Ok(Exit::Done);
    };
    let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir));
    written.map_err(|error| Failure::new(Exit::Invalid, format!("cannot write manual pages into {}: {error}", dir.display())))?;
    Ok(Exit::Done)
}
