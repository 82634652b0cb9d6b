//! Tells when something in a configuration folder may have changed, and whether it has.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::event::ModifyKind;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{Folder, Paths, files};

/// Watches the folder of `opmas.toml` and the folders in it. Links are followed, and found again where they lead elsewhere
/// ([`Watcher::renew`]); what the system does not tell of, [`Watcher::fingerprint`] finds.
pub struct Watcher {
    paths: Paths,
    /// Absolute.
    base: PathBuf,
    system: Option<RecommendedWatcher>,
}

impl Watcher {
    /// Calls `wake` whenever something there may have changed.
    pub fn new(paths: &Paths, wake: impl Fn() + Send + 'static) -> Watcher {
        let base = std::path::absolute(if paths.base.as_os_str().is_empty() { Path::new(".") } else { &paths.base }).unwrap_or_default();
        let at = base.clone();
        let told = move |event: notify::Result<Event>| {
            if event.map_or(true, |event| concerns(&event, &at)) {
                wake();
            }
        };
        Watcher { paths: paths.clone(), base, system: notify::recommended_watcher(told).ok() }
    }

    /// Watches what is there now: folders may have been made since, and links may lead elsewhere.
    ///
    /// # Errors
    /// The system cannot tell of changes, one sentence; then only [`Watcher::fingerprint`] does.
    pub fn renew(&mut self) -> Result<(), String> {
        let told = "changes of the configuration are seen within seconds only, since the system does not tell of them";
        let Some(system) = &mut self.system else { return Err(told.to_owned()) };
        let folders = Folder::ALL.map(|folder| self.base.join(folder.name()));
        let there = folders.iter().filter(|folder| folder.is_dir()).map(|folder| (folder, RecursiveMode::Recursive));
        for (path, mode) in std::iter::once((&self.base, RecursiveMode::NonRecursive)).chain(there) {
            match system.watch(path, mode) {
                Err(error) if path.exists() => return Err(format!("{told}: {error}")),
                _ => {}
            }
        }
        Ok(())
    }

    /// A number that is another one once a file was written, added, taken away or replaced, or a link leads elsewhere. Reads no content:
    /// the time of change, which nobody can set, and the file's identity do.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let folders = Folder::ALL.iter().flat_map(|folder| files::paths(&self.paths.base, *folder).ok().flatten().unwrap_or_default());
        for path in [self.paths.file.clone(), self.paths.devices.clone()].into_iter().chain(folders) {
            let data = std::fs::metadata(&path).ok();
            (path, data.map(|data| (data.dev(), data.ino(), data.len(), data.ctime(), data.ctime_nsec()))).hash(&mut hasher);
        }
        for folder in Folder::ALL {
            self.paths.base.join(folder.name()).exists().hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Whether an event may be about the configuration. Beside it in the same folder may lie logs that are written all the time.
fn concerns(event: &Event, base: &Path) -> bool {
    match event.kind {
        EventKind::Access(_) => false,
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_) | ModifyKind::Any) => event.paths.iter().any(|path| is_ours(path, base)),
        // Made, renamed, taken away, lost: it may be a link that ours go through.
        _ => true,
    }
}

fn is_ours(path: &Path, base: &Path) -> bool {
    let first = path.strip_prefix(base).ok().and_then(|path| path.iter().next());
    first.is_none_or(|first| first.to_string_lossy().ends_with(".toml") || Folder::ALL.iter().any(|folder| first == folder.name()))
}
