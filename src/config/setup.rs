//! Everything that a configuration folder says, read and checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::{Content, Part};
use super::{FilesError, Folder, Settings, files};
use crate::diag::{Diagnostic, Place};
use crate::secret::{Secret, SecretError, SecretSource};
use crate::source::SourceConfig;

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

impl Paths {
    /// One sentence for each folder that is not there.
    #[must_use]
    pub fn shipped(&self) -> Vec<String> {
        let absent = Folder::ALL.map(Folder::name).into_iter().filter(|name| !self.base.join(name).exists());
        absent.map(|name| format!("{name}/ is not there: the shipped ones are used")).collect()
    }
}

impl Setup {
    /// As [`Content::unbound`], of the user's own playbooks: those that opmas brings wait for rules that it brings, which a user's own
    /// rules take the place of.
    #[must_use]
    pub fn unbound(&self) -> Vec<Diagnostic> {
        let own = self.paths.base.join(Folder::Playbooks.name()).exists();
        if own { self.content.unbound() } else { Vec::new() }
    }
}

/// Why nothing can be started: no valid configuration (exit 3).
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// There is no such file.
    #[error("there is no {0}; write one with `opmas init`, or name another with --config")]
    Missing(PathBuf),
    /// `opmas.toml` cannot be read.
    #[error("{0}")]
    Unreadable(FilesError),
    /// A folder or file cannot be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A file that must be right is not.
    #[error(transparent)]
    Diagnostic(#[from] Diagnostic),
}

/// Everything that a configuration folder says.
#[derive(Debug)]
pub struct Setup {
    /// Where it was read from.
    pub paths: Paths,
    /// The text of `opmas.toml`
    pub text: Arc<str>,
    /// `opmas.toml`
    pub settings: Settings,
    /// Everything else. Files that did not load are named in it; the rest runs.
    pub content: Content,
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

    /// The bearer token that `[http] token_file` names.
    ///
    /// # Errors
    /// The file cannot be read or is empty.
    pub fn token(&self) -> Result<Option<Secret>, Diagnostic> {
        self.settings.http.token_file.as_deref().map(|path| self.secret("[http]", path)).transpose()
    }

    /// The bearer tokens of the sources of type `http`, by the sources' names.
    ///
    /// # Errors
    /// A file cannot be read or is empty, or two tokens are the same: then nobody could say whose lines come with it.
    pub fn source_tokens(&self) -> Result<Vec<(Arc<str>, Secret)>, Diagnostic> {
        let mut tokens: Vec<(Arc<str>, Secret)> = Vec::new();
        let pages = self.token()?;
        for (name, source) in &self.settings.source {
            let SourceConfig::Http(http) = source else { continue };
            let place = format!("[source.{name}]");
            let token = self.secret(&place, &http.token_file)?;
            let other = tokens.iter().find(|(_, other)| *other == token).map(|(other, _)| format!("[source.{other}]"));
            if let Some(other) = other.or_else(|| (pages.as_ref() == Some(&token)).then(|| "[http]".to_owned())) {
                return Err(self.wrong_token(&place, &format!("this is the token of {other} too")));
            }
            tokens.push((name.as_str().into(), token));
        }
        Ok(tokens)
    }

    /// The bearer tokens that may answer runs, by their names.
    ///
    /// # Errors
    /// One cannot be read, or is another one's too.
    pub fn api_tokens(&self) -> Result<Vec<(Arc<str>, Secret)>, Diagnostic> {
        let mut tokens: Vec<(Arc<str>, Secret)> = self.source_tokens()?;
        tokens.extend(self.token()?.map(|token| ("[http]".into(), token)));
        let others = tokens.len();
        for (name, source) in &self.settings.api.token {
            let table = format!("api.token.{name}");
            let wrong = |what: String| {
                Diagnostic::new(self.paths.file.display().to_string(), Place::of_key_in(&self.text, &table, "file"), format!("[{table}]: {what}"))
                    .help("write a long random word into a file of its own, and name it: file = \"secrets/NAME.token\"")
            };
            let token = Secret::new(source.read().map_err(|error| wrong(error.to_string()))?.expose().trim());
            if token.expose().is_empty() || tokens.iter().any(|(_, other)| *other == token) {
                return Err(wrong("the token is empty, or another one's too".to_owned()));
            }
            tokens.push((name.as_str().into(), token));
        }
        Ok(tokens.split_off(others))
    }

    fn secret(&self, table: &str, path: &Path) -> Result<Secret, Diagnostic> {
        let empty = || self.wrong_token(table, &format!("{} is empty", path.display()));
        let read = SecretSource::File(path.to_owned()).read().map_err(|error| match error {
            SecretError::File { path, error } => self.wrong_token(table, &format!("cannot read {}: {error}", path.display())),
            SecretError::Empty(_) => empty(),
            other => self.wrong_token(table, &other.to_string()),
        })?;
        let token = Secret::new(read.expose().trim());
        if token.expose().is_empty() { Err(empty()) } else { Ok(token) }
    }

    /// At the key of that table, as far as the table is written with a header of its own.
    fn wrong_token(&self, table: &str, what: &str) -> Diagnostic {
        let header = self.text.lines().position(|line| line.trim() == table).unwrap_or(0);
        let rest = self.text.lines().skip(header).collect::<Vec<_>>().join("\n");
        let mut place = Place::of_key(&rest, "token_file");
        place.line += u32::try_from(header).unwrap_or(0);
        let wrong = Diagnostic::new(self.paths.file.display().to_string(), place, format!("{table} token_file: {what}"));
        wrong.help("write a long random word into that file, or name another")
    }

    /// From the text of `opmas.toml` and the folders beside `paths.file`.
    ///
    /// # Errors
    /// As [`Setup::load`].
    pub fn from_text(paths: Paths, text: &str) -> Result<Setup, Invalid> {
        let file = paths.file.display().to_string();
        let settings = Settings::parse(&file, text, &paths.base)?;
        let mut content = Content::read(&paths, &settings.sigma, &Content::default())?;
        content.guard.clone_from(&settings.guard);
        if let Some(wrong) = settings.actions.check(&content.catalogue, &file, text).into_iter().next() {
            return Err(wrong.into());
        }
        // Routes without a channel that is not there are better than none.
        let routes = content.refused(Part::Routes).iter().filter(|_| content.routes.is_empty());
        if let Some(wrong) = content.refused(Part::Devices).iter().chain(routes).next() {
            return Err(wrong.clone().into());
        }
        Ok(Setup { paths, text: text.into(), settings, content })
    }
}

fn read_optional(path: &Path) -> Result<Option<String>, Invalid> {
    match files::read(path, Path::new("")) {
        Ok(file) => Ok(Some(file.text.to_string())),
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(Invalid::Unreadable(error)),
    }
}
