//! `opmas init`

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::{Done, Exit, Failure};
use crate::config::Folder;

/// Arguments of `opmas init`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The folder; it is made when it is not there.
    dir: PathBuf,
}

const SETTINGS: &str = include_str!("init/opmas.toml");
const DEVICES: &str = include_str!("init/devices.toml");

pub(super) fn run(arguments: &Arguments) -> Done {
    let dir = &arguments.dir;
    let folders = Folder::ALL.map(Folder::name);
    let taken = ["opmas.toml", "devices.toml"].iter().chain(&folders).map(|name| dir.join(name)).find(|path| path.exists());
    if let Some(taken) = taken {
        return Err(Failure::new(Exit::Invalid, format!("{} is there already; nothing was written: name a folder without one", taken.display())));
    }
    for file in Folder::ALL.into_iter().flat_map(Folder::shipped) {
        write(&dir.join(&*file.name), &file.text)?;
    }
    let secrets = dir.join("secrets");
    let made = if secrets.is_dir() { Ok(()) } else { fs::DirBuilder::new().mode(0o700).create(&secrets) };
    made.map_err(|error| Failure::new(Exit::Invalid, format!("cannot make {}: {error}", secrets.display())))?;
    write(&dir.join("devices.toml"), DEVICES)?;
    // Last, so that a folder with an opmas.toml is whole.
    write(&dir.join("opmas.toml"), SETTINGS)?;
    println!("{} is ready:", dir.display());
    println!("  opmas.toml     what is listened to, and who may act (nobody yet: the posture is observe)");
    println!("  rules/         Sigma rules, and extractors/ that make fields of log lines");
    println!("  playbooks/     what is done about findings, and actions/ that say how");
    println!("  notifiers/     whom findings are told to, and routes.toml that says which");
    println!("  secrets/       passwords and keys that notifiers/ name, for you alone");
    println!("  devices.toml   the devices that actions run on; `opmas device add` fills it");
    println!("Go on with:");
    println!("  cd {} && opmas check && opmas run", dir.display());
    Ok(Exit::Done)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Invalid, format!("cannot write {}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}
