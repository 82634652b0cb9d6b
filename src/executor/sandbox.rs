//! What the executor keeps once it has read its files: ssh, its libraries, its keys, its control folder, the devices' ports.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::paths::Paths;
use crate::model::Inventory;
use crate::process::Confinement;

/// Where OpenSSH's client is looked for, since there is no PATH.
const SSH: [&str; 3] = ["/usr/bin/ssh", "/usr/local/bin/ssh", "/bin/ssh"];
/// Folders that hold the dynamic loader under its well-known name.
const LOADERS: [&str; 3] = ["/lib64", "/lib", "/usr/lib64"];
/// What ssh reads: libraries, the names of users and hosts, the configuration of its cryptography.
const READS: [&str; 19] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/etc/passwd",
    "/etc/nsswitch.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ssl/openssl.cnf",
    "/etc/crypto-policies",
    "/etc/localtime",
    "/dev/urandom",
    "/dev/random",
    "/proc/sys/crypto",
];
/// DNS over TCP, when an answer does not fit into a datagram.
const DNS: u16 = 53;

/// OpenSSH's client; the usual place when there is none, so that starting it says what is missing.
pub(super) fn ssh() -> &'static Path {
    let found = SSH.iter().map(Path::new).find(|path| path.exists());
    found.unwrap_or(Path::new("/usr/bin/ssh"))
}

/// What an executor with these files and devices needs.
pub(super) fn confinement(paths: &Paths, inventory: &Inventory) -> Confinement {
    let mut read: Vec<PathBuf> = READS.iter().map(PathBuf::from).collect();
    read.push(paths.keys());
    let mut exec = loaders();
    exec.push(ssh().to_owned());
    Confinement { read, write: vec![paths.controls(), "/dev/null".into()], exec, connect_ports: ports(inventory), ..Confinement::executor() }
}

fn ports(inventory: &Inventory) -> Vec<u16> {
    let mut ports: Vec<u16> = inventory.devices.iter().map(|device| device.port).collect();
    if inventory.devices.iter().any(|device| device.host.parse::<IpAddr>().is_err()) {
        ports.push(DNS);
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// The dynamic loaders of glibc and musl: `ld-linux-x86-64.so.2`, `ld-linux-aarch64.so.1`, `ld-musl-x86_64.so.1`.
fn loaders() -> Vec<PathBuf> {
    let entries = LOADERS.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let named = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("ld-linux") || name.starts_with("ld-musl")
    });
    named.map(|entry| entry.path()).collect()
}
