//! `opmas config`: the configuration as opmas understands it.

use std::io;
use std::path::Path;

use super::{Done, Exit, Failure};
use crate::config::{Folder, Paths, Settings, Setup};

/// What to do.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Print what is in effect, as TOML that opmas reads: every key with its value, paths made absolute. Secrets are only ever named by their files.
    Show {
        /// Print what is in effect where `opmas.toml` says nothing.
        #[arg(long)]
        defaults: bool,
    },
}

pub(super) fn run(config: Option<&Path>, command: &Command) -> Done {
    let Command::Show { defaults } = command;
    let invalid = |error: &dyn std::fmt::Display| Failure::new(Exit::Invalid, error);
    let (paths, mut settings) = match defaults {
        true => (None, Settings::parse("opmas.toml", "", Path::new("")).map_err(|error| invalid(&error))?),
        false => Setup::settings(config).map(|(paths, settings)| (Some(paths), settings)).map_err(|error| invalid(&error))?,
    };
    let mut text = String::new();
    if let Some(paths) = paths {
        settings.make_absolute().map_err(|error| invalid(&error))?;
        text = origin(&paths).map_err(|error| invalid(&error))?;
    }
    text += &toml::to_string(&settings).map_err(|error| invalid(&error))?;
    super::print(&mut io::stdout().lock(), text.as_bytes())?;
    Ok(Exit::Done)
}

/// Comments that say where everything is read from.
fn origin(paths: &Paths) -> io::Result<String> {
    let place = |path: &Path, absent: &str| -> io::Result<String> {
        let path = std::path::absolute(path)?;
        Ok(if path.exists() { format!("# {}\n", path.display()) } else { format!("# {} is not there: {absent}\n", path.display()) })
    };
    let mut text = place(&paths.file, "every default")?;
    text += &place(&paths.devices, "no device")?;
    for folder in Folder::ALL {
        text += &place(&paths.base.join(folder.name()), "the files that opmas brings")?;
    }
    Ok(text + "\n")
}
