//! Reads the folders beside `opmas.toml`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::shipped::Folder;
use crate::diag::{Diagnostic, Place, SourceFile};

/// Most files that one folder may hold; SigmaHQ's whole collection is a tenth of it.
pub const MAX_FILES: usize = 50_000;
/// Largest file that is read; a rule file is a few kilobytes.
pub const MAX_FILE_BYTES: u64 = 16 << 20;
/// Deepest folder that is looked into: links may lead in a circle.
const MAX_DEPTH: usize = 10;

/// Why a folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The system said no.
    #[error("{path}: {cause}")]
    Io {
        /// What was being read.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// More than [`MAX_FILES`].
    #[error("{0}: more than {MAX_FILES} files in one folder; name a smaller one")]
    TooMany(PathBuf),
    /// Larger than [`MAX_FILE_BYTES`].
    #[error("{0}: larger than {MAX_FILE_BYTES} bytes; split it")]
    TooLarge(PathBuf),
    /// A folder where a file is expected.
    #[error("{0} is a folder; name the file in it, such as {0}/opmas.toml")]
    Folder(PathBuf),
    /// Not UTF-8, from that place on.
    #[error("{0}:{line}:{column}: not UTF-8 text; save it as UTF-8", line = .1.line, column = .1.column)]
    NotText(PathBuf, Place),
    /// Neither a file nor a folder: a pipe, a device or a socket, which is not opened.
    #[error("{0} is no regular file; name a file or a folder")]
    Special(PathBuf),
    /// A link to nowhere.
    #[error("{0} is a link to nothing; remove it, or write what it names")]
    Dangling(PathBuf),
}

impl FilesError {
    /// Whether what was to be read is not there.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, FilesError::Io { cause, .. } if cause.kind() == io::ErrorKind::NotFound)
    }
}

/// What was found of a folder's files.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Those that can be read, in the order of their names.
    pub files: Vec<SourceFile>,
    /// Those that cannot.
    pub unreadable: Vec<Diagnostic>,
}

/// The files of `base/FOLDER` whose names are `wanted`, or the shipped ones when there is no such folder.
///
/// # Errors
/// The folder itself cannot be read, or holds too many files.
pub fn folder(base: &Path, folder: Folder, wanted: impl Fn(&str) -> bool) -> Result<Found, FilesError> {
    let mut found = Found::default();
    let Some(paths) = paths(base, folder)? else {
        found.files = folder.shipped().into_iter().filter(|file| wanted(&file.name)).collect();
        return Ok(found);
    };
    for path in paths {
        let name = name(&path, base);
        if wanted(&name) {
            found.take(&path, base);
        }
    }
    Ok(found)
}

/// The files of a folder, also in folders below it, whose names are `wanted`, by name; or the one file that `path` is, whatever its name.
/// They are named by their paths as given.
///
/// # Errors
/// The folder, or the one file, cannot be read; or there are too many files.
pub fn tree(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Found, FilesError> {
    let here = Path::new("");
    if !fs::metadata(path).is_ok_and(|data| data.is_dir()) {
        return Ok(Found { files: vec![read(path, here)?], unreadable: Vec::new() });
    }
    let mut found = Found::default();
    below(path)?.iter().filter(|path| wanted(&name(path, here))).for_each(|path| found.take(path, here));
    Ok(found)
}

impl Found {
    /// Reads one more file; one that is not there (any more) is nothing.
    pub(super) fn take(&mut self, path: &Path, base: &Path) {
        match read(path, base) {
            Ok(file) => self.files.push(file),
            Err(error) if error.is_absence() => {}
            Err(FilesError::Io { cause, .. }) => self.unreadable.push(whole(&name(path, base), format!("cannot be read: {cause}"))),
            Err(FilesError::Folder(_)) => self.unreadable.push(whole(&name(path, base), "is a folder".to_owned()).help("write a file in its place")),
            Err(FilesError::NotText(_, place)) => {
                self.unreadable.push(Diagnostic::new(name(path, base), place, "is not UTF-8 text".to_owned()).help("save it as UTF-8"));
            }
            Err(FilesError::Special(_)) => self.unreadable.push(whole(&name(path, base), "is no regular file".to_owned()).help("write a file in its place")),
            Err(FilesError::Dangling(_)) => {
                self.unreadable.push(whole(&name(path, base), "is a link to nothing".to_owned()).help("remove it, or write what it names"));
            }
            Err(_) => self.unreadable.push(whole(&name(path, base), format!("is larger than {MAX_FILE_BYTES} bytes")).help("split it")),
        }
    }
}

fn whole(name: &str, message: String) -> Diagnostic {
    Diagnostic::new(name, Place::default(), message)
}

/// All files below `base/FOLDER`, sorted; `None` when there is no such folder. Hidden files are left out.
pub(super) fn paths(base: &Path, folder: Folder) -> Result<Option<Vec<PathBuf>>, FilesError> {
    let dir = base.join(folder.name());
    if fs::metadata(&dir).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(None);
    }
    below(&dir).map(Some)
}

fn below(dir: &Path) -> Result<Vec<PathBuf>, FilesError> {
    // What is no folder, or cannot be looked into, is not only left out.
    fs::read_dir(dir).map_err(|cause| FilesError::Io { path: dir.to_owned(), cause })?;
    let mut paths = Vec::new();
    walk(dir, MAX_DEPTH, &mut paths)?;
    paths.sort();
    Ok(paths)
}

/// One file, named relative to `base`.
///
/// # Errors
/// It cannot be read, is too large, or is not text.
pub fn read(path: &Path, base: &Path) -> Result<SourceFile, FilesError> {
    let io = |cause| FilesError::Io { path: path.to_owned(), cause };
    let data = fs::metadata(path).map_err(|cause| if is_dangling(path, &cause) { FilesError::Dangling(path.to_owned()) } else { io(cause) })?;
    if data.is_dir() {
        return Err(FilesError::Folder(path.to_owned()));
    }
    if !data.is_file() {
        return Err(FilesError::Special(path.to_owned()));
    }
    if data.len() > MAX_FILE_BYTES {
        return Err(FilesError::TooLarge(path.to_owned()));
    }
    let text = String::from_utf8(fs::read(path).map_err(io)?).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        FilesError::NotText(path.to_owned(), Place::of_offset(&String::from_utf8_lossy(error.as_bytes()), valid))
    })?;
    Ok(SourceFile { name: name(path, base).into(), text: text.into() })
}

/// Whether what is not there is what a link names.
fn is_dangling(path: &Path, cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_ok()
}

fn name(path: &Path, base: &Path) -> String {
    path.strip_prefix(base).unwrap_or(path).display().to_string()
}

fn walk(path: &Path, depth: usize, out: &mut Vec<PathBuf>) -> Result<(), FilesError> {
    let io = |cause| FilesError::Io { path: path.to_owned(), cause };
    let is_dir = match fs::metadata(path) {
        // Gone meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_dangling(path, &error) => return Ok(()),
        // A link in a circle or to nothing, say: it is named when it is read.
        data => data.is_ok_and(|data| data.is_dir()),
    };
    if !is_dir {
        out.push(path.to_owned());
        return if out.len() > MAX_FILES { Err(FilesError::TooMany(path.to_owned())) } else { Ok(()) };
    }
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        if depth > 0 && !entry.file_name().to_string_lossy().starts_with('.') {
            walk(&entry.path(), depth - 1, out)?;
        }
    }
    Ok(())
}

/// Whether a file below `rules/` is a rule file, rather than its cases, a pipeline or an extractor.
#[must_use]
pub fn is_rule(name: &str) -> bool {
    (name.ends_with(".yml") || name.ends_with(".yaml")) && !name.ends_with(".cases.yml") && !name.ends_with(".cases.yaml") && !is_pipeline(name)
}

/// Whether a file below `rules/` is a pipeline: it applies where the configuration names it.
#[must_use]
pub fn is_pipeline(name: &str) -> bool {
    in_folder(name, "pipelines")
}

/// Whether a file below `rules/` is an extractor file.
#[must_use]
pub fn is_extractor(name: &str) -> bool {
    in_folder(name, "extractors") && name.ends_with(".toml")
}

/// Whether a file below `playbooks/` is an action.
#[must_use]
pub fn is_action(name: &str) -> bool {
    in_folder(name, "actions") && name.ends_with(".toml")
}

fn in_folder(name: &str, folder: &str) -> bool {
    Path::new(name).parent().is_some_and(|parent| parent.iter().any(|part| part == folder))
}
