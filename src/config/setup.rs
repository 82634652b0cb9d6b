//! Everything that a configuration folder says, read and checked.

use std::io;
use std::path::{Path, PathBuf};

use super::{FilesError, Folder, Settings, files};
use crate::action::Catalogue;
use crate::alert::Channels;
use crate::diag::{Diagnostic, Place, SourceFile};
use crate::model::Inventory;
use crate::playbook::{Playbooks, signatures};
use crate::triage::Routes;

/// Where a configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `opmas.toml`; it need not exist.
    pub file: PathBuf,
    /// Its folder, which `rules/`, `playbooks/`, `notifiers/` and `devices.toml` are beside it in.
    pub base: PathBuf,
    /// `devices.toml`.
    pub devices: PathBuf,
}

impl Paths {
    /// The paths that go with a configuration file; without one, `opmas.toml` in this folder.
    #[must_use]
    pub fn new(file: Option<&Path>) -> Paths {
        let file = file.unwrap_or(Path::new("opmas.toml")).to_owned();
        let base = file.parent().map(Path::to_owned).unwrap_or_default();
        Paths { devices: base.join("devices.toml"), file, base }
    }
}

/// Why nothing can be started: no valid configuration (exit 3).
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// There is no such file.
    #[error("there is no {0}; write one with `opmas init`, or name another with --config")]
    Missing(PathBuf),
    /// A folder or file cannot be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A file that must be right is not.
    #[error(transparent)]
    Diagnostic(#[from] Diagnostic),
}

/// Everything that a configuration folder says. Files that did not load are named in `diagnostics`; the rest runs.
#[derive(Debug)]
pub struct Setup {
    /// Where it was read from.
    pub paths: Paths,
    /// `opmas.toml`
    pub settings: Settings,
    /// `devices.toml`
    pub inventory: Inventory,
    /// Rule files, as text: they go live as a spool entry.
    pub rules: Vec<SourceFile>,
    /// Extractor files, the same.
    pub extractors: Vec<SourceFile>,
    /// `playbooks/actions/`
    pub catalogue: Catalogue,
    /// `playbooks/`
    pub playbooks: Playbooks,
    /// `notifiers/`
    pub channels: Channels,
    /// `notifiers/routes.toml`
    pub routes: Routes,
    /// Files that did not load, and are left out.
    pub diagnostics: Vec<Diagnostic>,
}

impl Setup {
    /// Reads a configuration folder.
    ///
    /// # Errors
    /// There is no such file, or what must be right (`opmas.toml`, `devices.toml`, `routes.toml`) is not.
    pub fn load(file: Option<&Path>) -> Result<Setup, Invalid> {
        let paths = Paths::new(file);
        match read_optional(&paths.file)? {
            Some(source) => Setup::from_text(paths, &source),
            None => Err(Invalid::Missing(paths.file)),
        }
    }

    /// The same, with every default when there is no `opmas.toml` (commands that need none).
    ///
    /// # Errors
    /// As [`Setup::load`]; a file that was named must be there.
    pub fn load_or_default(file: Option<&Path>) -> Result<Setup, Invalid> {
        let paths = Paths::new(file);
        match read_optional(&paths.file)? {
            Some(source) => Setup::from_text(paths, &source),
            None if file.is_some() => Err(Invalid::Missing(paths.file)),
            None => Setup::from_text(paths, ""),
        }
    }

    /// Only `opmas.toml`, every default when there is none, for commands that need no more of the configuration.
    ///
    /// # Errors
    /// As [`Setup::load_or_default`].
    pub fn settings(file: Option<&Path>) -> Result<(Paths, Settings), Invalid> {
        let paths = Paths::new(file);
        let text = match read_optional(&paths.file)? {
            Some(text) => text,
            None if file.is_some() => return Err(Invalid::Missing(paths.file)),
            None => String::new(),
        };
        let settings = Settings::parse(&paths.file.display().to_string(), &text, &paths.base)?;
        Ok((paths, settings))
    }

    /// From the text of `opmas.toml` and the folders beside `paths.file`.
    ///
    /// # Errors
    /// As [`Setup::load`].
    pub fn from_text(paths: Paths, text: &str) -> Result<Setup, Invalid> {
        let base = paths.base.clone();
        let settings = Settings::parse(&paths.file.display().to_string(), text, &base)?;
        let inventory = match read_optional(&paths.devices)? {
            Some(text) => crate::executor::inventory::parse(&paths.devices.display().to_string(), &text)?,
            None => Inventory::default(),
        };
        let rules = files::folder(&base, Folder::Rules)?;
        let playbooks = files::folder(&base, Folder::Playbooks)?;
        let notifiers = files::folder(&base, Folder::Notifiers)?;
        let mut diagnostics = Vec::new();
        let (catalogue, wrong) = Catalogue::load(&select(&playbooks, files::is_action));
        diagnostics.extend(wrong);
        if let Some(wrong) = settings.actions.check(&catalogue, &paths.file.display().to_string(), text).into_iter().next() {
            return Err(wrong.into());
        }
        let scripts = Playbooks::load(&select(&playbooks, |f| f.name.ends_with(".rhai")), &signatures(&catalogue));
        diagnostics.extend(scripts.diagnostics);
        let channels = Channels::load(&select(&notifiers, |f| f.name.ends_with(".toml") && !is_routes(f)), &base);
        diagnostics.extend(channels.diagnostics);
        let channels = channels.channels;
        let routes = match notifiers.iter().find(|f| is_routes(f)) {
            Some(file) => Routes::load(file, &channels.names()).map_err(first)?,
            None => Routes::default(),
        };
        Ok(Setup {
            rules: select(&rules, files::is_rule),
            extractors: select(&rules, files::is_extractor),
            paths,
            settings,
            inventory,
            catalogue,
            playbooks: scripts.playbooks,
            channels,
            routes,
            diagnostics,
        })
    }
}

fn is_routes(file: &SourceFile) -> bool {
    file.name.ends_with("/routes.toml")
}

fn select(files: &[SourceFile], wanted: impl Fn(&SourceFile) -> bool) -> Vec<SourceFile> {
    files.iter().filter(|file| wanted(file)).cloned().collect()
}

fn first(mut wrong: Vec<Diagnostic>) -> Diagnostic {
    if wrong.is_empty() { Diagnostic::new("notifiers/routes.toml", Place::default(), "does not load") } else { wrong.swap_remove(0) }
}

fn read_optional(path: &Path) -> Result<Option<String>, FilesError> {
    match files::read(path, Path::new("")) {
        Ok(file) => Ok(Some(file.text.to_string())),
        Err(FilesError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
