//! What the executor reads by itself before it confines itself.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex};

use serde::Deserialize;

use super::inventory;
use super::paths::{Paths, private_folder};
use super::{master, own, sandbox};
use crate::action::{Catalogue, Guard, GuardConfig};
use crate::diag::{self, SourceFile};
use crate::model::Inventory;
use crate::process;

/// Everything that decides, as it stood when the process started: a changed file needs a new process, since a sandbox never widens.
#[derive(Debug)]
pub(super) struct Setup {
    pub paths: Paths,
    pub inventory: Inventory,
    pub catalogue: Catalogue,
    /// Learns what each device says of itself.
    pub guard: Mutex<Guard>,
}

/// Why the executor cannot start: one sentence with the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    #[error("the executor is started by opmas itself, with four absolute paths")]
    Arguments,
    #[error("{path}: {cause}")]
    Read { path: String, cause: io::Error },
    #[error("{0}")]
    Content(String),
    #[error("{path}: the folder for control sockets cannot be made: {cause}")]
    Control { path: String, cause: io::Error },
    #[error("the executor cannot confine itself: {0}")]
    Confine(#[from] process::ConfineError),
}

/// The one table of `opmas.toml` that the executor needs; the rest is not its business.
#[derive(Default, Deserialize)]
struct GuardTable {
    #[serde(default)]
    guard: GuardConfig,
}

impl Setup {
    /// Reads the files, confines the process, and says what this kernel cannot enforce. To be called from the only thread.
    pub fn prepare(args: &[String], shipped: &[SourceFile]) -> Result<(Setup, Vec<String>), SetupError> {
        let paths = Paths::from_args(args).ok_or(SetupError::Arguments)?;
        let inventory = inventory::load(&paths.devices).map_err(|e| SetupError::Content(e.to_string()))?;
        let catalogue = catalogue(&paths, shipped)?;
        let guard = guard(&paths, &inventory)?;
        control(&paths)?;
        let weaknesses = process::confine(&sandbox::confinement(&paths, &inventory))?;
        Ok((Setup { paths, inventory, catalogue, guard: Mutex::new(guard) }, weaknesses))
    }
}

/// The actions in `playbooks/`, or the shipped ones when there is no such folder. What does not load is not there: the engine tells
/// the user about it, who reads the same files.
fn catalogue(paths: &Paths, shipped: &[SourceFile]) -> Result<Catalogue, SetupError> {
    let folder = paths.base.join("playbooks");
    let files = match fs::metadata(&folder) {
        Ok(_) => actions(&paths.base, &folder.join("actions"))?,
        Err(_) => shipped.to_vec(),
    };
    Ok(Catalogue::load(&files).0)
}

/// The `.toml` files of one folder, by name.
fn actions(base: &std::path::Path, folder: &std::path::Path) -> Result<Vec<SourceFile>, SetupError> {
    let read = |path: &std::path::Path, cause| SetupError::Read { path: path.display().to_string(), cause };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| read(folder, e))?,
    };
    let mut files = Vec::new();
    for entry in entries.take(MAX_ACTIONS) {
        let path = entry.map_err(|e| read(folder, e))?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            let text: Arc<str> = fs::read_to_string(&path).map_err(|e| read(&path, e))?.into();
            files.push(SourceFile { name: path.strip_prefix(base).unwrap_or(&path).display().to_string().into(), text });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Most files in a folder of actions.
const MAX_ACTIONS: usize = 10_000;

fn guard(paths: &Paths, inventory: &Inventory) -> Result<Guard, SetupError> {
    let name = paths.config.display().to_string();
    let text = match fs::read_to_string(&paths.config) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.map_err(|cause| SetupError::Read { path: name.clone(), cause })?,
    };
    let table: GuardTable = diag::from_toml(&name, &text).map_err(|e| SetupError::Content(e.to_string()))?;
    Ok(Guard::new(&table.guard, inventory, own::addresses()))
}

/// Makes the folder of this process's control sockets and goes there, so that their paths are short; takes away those of others that are no more.
fn control(paths: &Paths) -> Result<(), SetupError> {
    let folder = paths.control(std::process::id());
    let fail = |cause| SetupError::Control { path: folder.display().to_string(), cause };
    private_folder(&paths.controls()).map_err(fail)?;
    master::sweep(&paths.controls()).map_err(fail)?;
    private_folder(&folder).map_err(fail)?;
    std::env::set_current_dir(&folder).map_err(fail)
}
