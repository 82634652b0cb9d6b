//! Files, execution and TCP ports, by Landlock as far as this kernel has it.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd, PathFdError, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope, make_bitflags,
};

use super::{ConfineError, Confinement};

/// The newest rules that are asked for. A newer kernel's further ones are taken up once they have been tried.
const ASKED: ABI = ABI::V7;

/// What older kernels do not enforce.
const NEEDS: [(ABI, &str); 5] = [
    (ABI::V2, "this kernel lets a confined process move files between folders that it may write (Linux 5.19 and newer prevent it)"),
    (ABI::V3, "this kernel lets a confined process truncate files that it may not write (Linux 6.2 and newer prevent it)"),
    (ABI::V4, "this kernel lets a confined process connect to any TCP port (Linux 6.7 and newer prevent it)"),
    (ABI::V5, "this kernel lets a confined process control devices that it has opened (Linux 6.10 and newer prevent it)"),
    (ABI::V6, "this kernel lets a confined process signal others of its user and reach abstract sockets (Linux 6.12 and newer prevent it)"),
];

/// Restricts the calling thread and what it starts. Returns a sentence for each thing that this kernel cannot enforce.
///
/// # Errors
/// Landlock is there, and refuses.
pub(super) fn restrict(confinement: &Confinement) -> Result<Vec<String>, ConfineError> {
    let refused = |error: &dyn std::error::Error| ConfineError::Landlock(error.to_string());
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(ASKED))
        .and_then(|r| r.handle_access(AccessNet::from_all(ASKED)))
        .and_then(|r| r.scope(Scope::AbstractUnixSocket | Scope::Signal))
        .and_then(Ruleset::create)
        .map_err(|e| refused(&e))?;
    for (paths, rights) in [(&confinement.read, read()), (&confinement.write, write()), (&confinement.exec, execute())] {
        rules = permit(rules, paths, rights)?;
    }
    for port in &confinement.connect_ports {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(|e| refused(&e))?;
    }
    rules.restrict_self().map(|status| missing(&status)).map_err(|e| refused(&e))
}

fn read() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{ReadFile | ReadDir})
}

fn execute() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir})
}

fn write() -> BitFlags<AccessFs> {
    read() | make_bitflags!(AccessFs::{WriteFile | Truncate | RemoveFile | RemoveDir | MakeReg | MakeDir | MakeSock | Refer})
}

fn permit(mut rules: RulesetCreated, paths: &[PathBuf], rights: BitFlags<AccessFs>) -> Result<RulesetCreated, ConfineError> {
    for path in paths {
        let Some(opened) = open(path)? else { continue };
        // The kernel refuses rights of folders on a file.
        let rights = if path.is_dir() { rights } else { rights & AccessFs::from_file(ASKED) };
        rules = rules.add_rule(PathBeneath::new(opened, rights)).map_err(|e| ConfineError::Landlock(format!("{}: {e}", path.display())))?;
    }
    Ok(rules)
}

/// `None` when there is nothing of this name.
fn open(path: &Path) -> Result<Option<PathFd>, ConfineError> {
    match PathFd::new(path) {
        Ok(opened) => Ok(Some(opened)),
        Err(PathFdError::OpenCall { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConfineError::Landlock(error.to_string())),
    }
}

fn missing(status: &RestrictionStatus) -> Vec<String> {
    match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => {
            NEEDS.iter().filter(|(abi, _)| effective_abi < *abi).map(|(_, sentence)| (*sentence).to_owned()).collect()
        }
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => {
            vec![
                "this kernel restricts neither files nor ports of a confined process: Landlock is not enabled (Linux 5.13 and newer, `lsm=landlock`)"
                    .to_owned(),
            ]
        }
    }
}
