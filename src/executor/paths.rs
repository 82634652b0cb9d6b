//! Where the executor's files are: given by the engine as arguments, since it has no environment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The files and folders of the executor, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `opmas.toml`, for its `[guard]` table; it need not exist.
    pub config: PathBuf,
    /// `devices.toml`; without it there is no device.
    pub devices: PathBuf,
    /// The folder that may hold `playbooks/` with actions of the user's own.
    pub base: PathBuf,
    /// The data folder: `keys/` and `ctl/` are in it.
    pub data: PathBuf,
}

impl Paths {
    /// The paths for a configuration file (which need not exist) and a data folder, made absolute.
    ///
    /// # Errors
    /// The current folder cannot be asked for.
    pub fn new(config: &Path, data: &Path) -> io::Result<Paths> {
        let config = std::path::absolute(config)?;
        let base = config.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Paths { devices: base.join("devices.toml"), base, config, data: std::path::absolute(data)? })
    }

    /// The folder of the ssh key and the pinned host keys.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.data.join("keys")
    }

    /// The private key that logs in to devices.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.keys().join("id_ed25519")
    }

    /// The private key that logs in to devices without Ed25519; made for the first of them.
    #[must_use]
    pub fn rsa_key(&self) -> PathBuf {
        self.keys().join("id_rsa")
    }

    /// The pinned host keys, in the form of ssh's `known_hosts`.
    #[must_use]
    pub fn known_hosts(&self) -> PathBuf {
        self.keys().join("known_hosts")
    }

    /// The folder of all control sockets.
    #[must_use]
    pub fn controls(&self) -> PathBuf {
        self.data.join("ctl")
    }

    /// The folder of the control sockets of one executor process; private, made by it.
    #[must_use]
    pub fn control(&self, process: u32) -> PathBuf {
        self.controls().join(process.to_string())
    }

    /// As arguments, in the order that [`Paths::from_args`] reads them.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        [&self.config, &self.devices, &self.base, &self.data].iter().map(|path| path.display().to_string()).collect()
    }

    /// From the arguments of the executor process; `None` when they are not four absolute paths.
    #[must_use]
    pub fn from_args(args: &[String]) -> Option<Paths> {
        let [config, devices, base, data] = args else { return None };
        let paths = Paths { config: config.into(), devices: devices.into(), base: base.into(), data: data.into() };
        [&paths.config, &paths.devices, &paths.base, &paths.data].iter().all(|p| p.is_absolute()).then_some(paths)
    }
}

/// Makes a folder that only we may enter, with those above it.
///
/// # Errors
/// It cannot be made, or another user owns it.
pub(super) fn private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    fs::create_dir_all(path)?;
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it is not a folder of the user that runs opmas"));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_back_as_the_same_paths() {
        let paths = Paths::new(Path::new("opmas.toml"), Path::new("opmas-data")).unwrap();
        assert_eq!(Paths::from_args(&paths.to_args()), Some(paths));
        assert_eq!(Paths::from_args(&["a".into(), "b".into(), "c".into(), "d".into()]), None);
    }
}
