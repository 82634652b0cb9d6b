//! What the executor reads by itself before it confines itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

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

/// Most files that are looked at for actions.
const MAX_FILES: usize = 10_000;
/// Deepest folder that is looked into below `playbooks/`.
const MAX_DEPTH: usize = 8;

/// The actions in `playbooks/`, or the shipped ones when there is no such folder. What does not load is not there: the engine tells
/// the user about it, who reads the same files.
pub(super) fn catalogue(paths: &Paths, shipped: &[SourceFile]) -> Result<Catalogue, SetupError> {
    let folder = paths.base.join("playbooks");
    if !folder.exists() {
        return Ok(Catalogue::load(shipped).0);
    }
    let mut found = Vec::new();
    walk(&folder, MAX_DEPTH, &mut found)?;
    found.sort();
    let files: Result<Vec<_>, _> = found.iter().map(|path| read(path, &paths.base)).collect();
    Ok(Catalogue::load(&files?).0)
}

/// The `.toml` files in folders called `actions` and in those below them; hidden ones are left out.
fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), SetupError> {
    let fail = |cause| SetupError::Read { path: folder.display().to_string(), cause };
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || found.len() >= MAX_FILES {
            continue;
        }
        if path.is_dir() {
            if depth > 0 {
                walk(&path, depth - 1, found)?;
            }
        } else if path.extension().is_some_and(|e| e == "toml") && folder.iter().any(|part| part == "actions") {
            found.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path, base: &Path) -> Result<SourceFile, SetupError> {
    let text = fs::read_to_string(path).map_err(|cause| SetupError::Read { path: path.display().to_string(), cause })?;
    Ok(SourceFile { name: path.strip_prefix(base).unwrap_or(path).display().to_string().into(), text: text.into() })
}

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
