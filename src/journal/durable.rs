//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Ending of files that are being written aside; what a crash left of them is removed at open.
pub(super) const ASIDE: &str = "tmp";

/// Makes the names in a folder durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes `parts` to `path` (0600): aside, fsync, rename, fsync of the folder. An older file of that name is replaced.
/// The file is returned, open for reading and writing.
pub(super) fn write_whole(path: &Path, parts: &[&[u8]]) -> io::Result<File> {
    write_whole_with(path, |file| parts.iter().try_for_each(|part| file.write_all(part)))
}

/// The same, for what `write` writes.
pub(super) fn write_whole_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let aside = path.with_extension(ASIDE);
    let written = write_aside(&aside, write).and_then(|file| fs::rename(&aside, path).map(|()| file));
    if written.is_err() {
        // Only space would be lost if this failed too; open removes it.
        let _ = fs::remove_file(&aside);
    }
    let file = written?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    Ok(file)
}

fn write_aside(aside: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(aside)?;
    write(&mut file)?;
    file.sync_all()?;
    Ok(file)
}

/// Removes what a crash left half written in a folder.
pub(super) fn remove_aside(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == ASIDE) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
