//! Reads the folders beside `opmas.toml`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::shipped::Folder;
use crate::diag::SourceFile;

/// Most files that one folder may hold; SigmaHQ's whole collection is a tenth of it.
pub const MAX_FILES: usize = 50_000;
/// Largest file that is read; a rule file is a few kilobytes.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

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
    /// Not UTF-8.
    #[error("{0}: not UTF-8 text; save it as UTF-8")]
    NotText(PathBuf),
}

/// The files of `base/FOLDER` in the order of their paths, or the shipped ones when there is no such folder.
///
/// # Errors
/// A file or folder that cannot be read, is too large, or is not text.
pub fn folder(base: &Path, folder: Folder) -> Result<Vec<SourceFile>, FilesError> {
    let dir = base.join(folder.name());
    match fs::metadata(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(folder.shipped()),
        _ => tree(&dir, base),
    }
}

/// All files below `root` (or `root` itself), named relative to `base`, sorted. Hidden files are left out.
///
/// # Errors
/// As [`folder`].
pub fn tree(root: &Path, base: &Path) -> Result<Vec<SourceFile>, FilesError> {
    let mut paths = Vec::new();
    walk(root, &mut paths)?;
    paths.sort();
    paths.iter().map(|path| read(path, base)).collect()
}

/// One file, named relative to `base`.
///
/// # Errors
/// As [`folder`].
pub fn read(path: &Path, base: &Path) -> Result<SourceFile, FilesError> {
    let io = |cause| FilesError::Io { path: path.to_owned(), cause };
    if fs::metadata(path).map_err(io)?.len() > MAX_FILE_BYTES {
        return Err(FilesError::TooLarge(path.to_owned()));
    }
    let text = String::from_utf8(fs::read(path).map_err(io)?).map_err(|_| FilesError::NotText(path.to_owned()))?;
    let name = path.strip_prefix(base).unwrap_or(path).display().to_string();
    Ok(SourceFile { name: name.into(), text: text.into() })
}

fn walk(path: &Path, out: &mut Vec<PathBuf>) -> Result<(), FilesError> {
    let io = |cause| FilesError::Io { path: path.to_owned(), cause };
    if !fs::metadata(path).map_err(io)?.is_dir() {
        out.push(path.to_owned());
        return if out.len() > MAX_FILES { Err(FilesError::TooMany(path.to_owned())) } else { Ok(()) };
    }
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            walk(&entry.path(), out)?;
        }
    }
    Ok(())
}

/// Whether a file below `rules/` is a rule file, rather than its cases or an extractor.
#[must_use]
pub fn is_rule(file: &SourceFile) -> bool {
    let name: &str = &file.name;
    (name.ends_with(".yml") || name.ends_with(".yaml")) && !name.ends_with(".cases.yml") && !name.ends_with(".cases.yaml")
}

/// Whether a file below `rules/` is an extractor file.
#[must_use]
pub fn is_extractor(file: &SourceFile) -> bool {
    in_folder(file, "extractors") && file.name.ends_with(".toml")
}

/// Whether a file below `playbooks/` is an action.
#[must_use]
pub fn is_action(file: &SourceFile) -> bool {
    in_folder(file, "actions") && file.name.ends_with(".toml")
}

fn in_folder(file: &SourceFile, folder: &str) -> bool {
    Path::new(&*file.name).parent().is_some_and(|parent| parent.iter().any(|part| part == folder))
}
