//! Getting to know a device: its host key, our key, and the place of both. Used by `opmas device add`; runs outside the sandbox.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

use super::master::quoted;
use super::paths::{Paths, private_folder};
pub use super::report::NOT_DONE;
use super::report::{self, LINES};
use super::setup::{self, SetupError};
use crate::action::HELPER;
use crate::diag::SourceFile;
use crate::model::{Device, Inventory, Platform};

/// How long a device may take to show its host key, in seconds.
const SCAN_S: &str = "5";
/// Which key is pinned, the best first.
const KINDS: [&str; 3] = ["ed25519", "ecdsa", "rsa"];
const ED25519: &str = "ssh-ed25519";
/// As long as is asked for until 2030 and later; every dropbear takes it.
const RSA_BITS: &str = "3072";
/// What the key may do on the device: run commands, nothing else. All of them are known to every dropbear since 2012; newer words
/// such as `restrict` make an older one refuse the key.
const OPTIONS: &str = "no-port-forwarding,no-agent-forwarding,no-X11-forwarding,no-pty";

/// Longest public key in bytes that is repeated in a message, since a cut one is of no use; opmas's own has about 90.
const MAX_KEY: usize = 300;
/// Where OpenWrt keeps the keys that may log in.
const AUTHORIZED: &str = "/etc/dropbear/authorized_keys";

/// A device's public host key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// Its algorithm, such as `ssh-ed25519`.
    pub algorithm: String,
    /// The key itself, base64 as in `known_hosts`.
    pub key: String,
}

/// Why a device cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// A tool of OpenSSH cannot be run.
    #[error("{tool} cannot be started: {cause}; install OpenSSH's client")]
    Tool {
        /// Which.
        tool: &'static str,
        /// The system's word.
        cause: io::Error,
    },
    /// The device showed no key.
    #[error("{host}:{port} shows no ssh host key{said}; is ssh on, and does the firewall let this machine in?")]
    NoKey {
        /// Where.
        host: String,
        /// Where.
        port: u16,
        /// What the tool said, with a colon before it, or nothing.
        said: String,
    },
    /// Another key is pinned.
    #[error("another key is pinned for {name} in {path}; if the device was reinstalled, take that line out and try again, else somebody may stand in between")]
    Pinned {
        /// The host as it stands in the file.
        name: String,
        /// The file.
        path: String,
    },
    /// Our key cannot be made or used.
    #[error("{path}: {why}")]
    Key {
        /// The file.
        path: String,
        /// What is wrong, and the remedy.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("{path}: {cause}")]
    File {
        /// The file.
        path: String,
        /// The system's word.
        cause: io::Error,
    },
}

impl HostKey {
    /// `SHA256:…`, as ssh and dropbear show it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let blob = STANDARD.decode(&self.key).unwrap_or_default();
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob)))
    }
}

/// Asks the device for its host key: the best one that it has. Nothing is believed yet, and nothing is written.
///
/// # Errors
/// The tool is missing, or nothing answers.
pub fn scan(host: &str, port: u16) -> Result<HostKey, EnrollError> {
    let mut said = String::new();
    for kind in KINDS {
        let port = port.to_string();
        let output = Command::new("ssh-keyscan")
            .args(["-T", SCAN_S, "-p", &port, "-t", kind, "--", host])
            .stdin(Stdio::null())
            .output()
            .map_err(|cause| EnrollError::Tool { tool: "ssh-keyscan", cause })?;
        if let Some(key) = String::from_utf8_lossy(&output.stdout).lines().find_map(parse) {
            return Ok(key);
        }
        said = reason(&String::from_utf8_lossy(&output.stderr));
        // A device that does not answer at all is not asked for other kinds.
        if !said.is_empty() {
            break;
        }
    }
    Err(EnrollError::NoKey { host: host.to_owned(), port, said })
}

/// The last thing that ssh-keyscan said that is not a comment, without its own name.
fn reason(stderr: &str) -> String {
    let line = stderr.lines().map(str::trim).rfind(|line| !line.is_empty() && !line.starts_with('#'));
    let line = line.map(|line| line.rsplit_once(": ").map_or(line, |(_, reason)| reason));
    line.map_or_else(String::new, |line| format!(": {}", line.chars().filter(|c| !c.is_control()).take(200).collect::<String>()))
}

/// `host algorithm key`; comments and what is not a key are nothing.
fn parse(line: &str) -> Option<HostKey> {
    let [_, algorithm, key] = line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
    let known = algorithm.starts_with("ssh-") || algorithm.starts_with("ecdsa-sha2-");
    (known && !line.starts_with('#') && STANDARD.decode(key).is_ok()).then(|| HostKey { algorithm: algorithm.to_owned(), key: key.to_owned() })
}

/// The keys that are pinned for the device's host and port.
///
/// # Errors
/// The file cannot be read.
pub fn pinned(paths: &Paths, device: &Device) -> Result<Vec<HostKey>, EnrollError> {
    let name = known_hosts_name(device);
    Ok(known_hosts(paths)?.lines().filter(|line| is_for(line, &name)).filter_map(parse).collect())
}

/// Takes the keys that are pinned for the device's host and port away.
///
/// # Errors
/// The file cannot be read or written.
pub fn unpin(paths: &Paths, device: &Device) -> Result<(), EnrollError> {
    let name = known_hosts_name(device);
    let text: String = known_hosts(paths)?.lines().filter(|line| !is_for(line, &name)).map(|line| format!("{line}\n")).collect();
    let path = paths.known_hosts();
    replace(&path, &text, 0o600).map_err(|cause| file(&path, cause))
}

/// The devices at other addresses that have shown this key: they are the same one, or copies of it.
///
/// # Errors
/// The file cannot be read.
pub fn shown_by<'a>(paths: &Paths, inventory: &'a Inventory, device: &Device, key: &HostKey) -> Result<Vec<&'a Device>, EnrollError> {
    let (all, own) = (known_hosts(paths)?, known_hosts_name(device));
    let names: Vec<&str> = all.lines().filter(|line| parse(line).as_ref() == Some(key)).filter_map(|line| line.split_whitespace().next()).collect();
    let other = |one: &&Device| known_hosts_name(one) != own && names.iter().any(|listed| listed.split(',').any(|name| name == known_hosts_name(one)));
    Ok(inventory.devices.iter().filter(other).collect())
}

/// That another key is pinned for the device's host than the one that it shows.
#[must_use]
pub fn other_pinned(paths: &Paths, device: &Device) -> EnrollError {
    EnrollError::Pinned { name: known_hosts_name(device), path: paths.known_hosts().display().to_string() }
}

/// Pins the key, if it is not there already, in place of every other one of the device's host and port.
///
/// # Errors
/// The file cannot be read or written.
pub fn pin(paths: &Paths, device: &Device, key: &HostKey) -> Result<(), EnrollError> {
    if pinned(paths, device)?.contains(key) {
        return Ok(());
    }
    private_folder(&paths.keys()).map_err(|cause| file(&paths.keys(), cause))?;
    let name = known_hosts_name(device);
    let mut text: String = known_hosts(paths)?.lines().filter(|line| !is_for(line, &name)).map(|line| format!("{line}\n")).collect();
    text.push_str(&format!("{name} {} {}\n", key.algorithm, key.key));
    let path = paths.known_hosts();
    replace(&path, &text, 0o600).map_err(|cause| file(&path, cause))
}

fn known_hosts(paths: &Paths) -> Result<String, EnrollError> {
    let path = paths.known_hosts();
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text.map_err(|cause| file(&path, cause)),
    }
}

/// Whether a line of `known_hosts` holds a key of this host.
fn is_for(line: &str, name: &str) -> bool {
    line.split_whitespace().next().is_some_and(|names| names.split(',').any(|n| n == name))
}

/// The host as `known_hosts` has it: `host`, or `[host]:port` for another port than 22; lower case.
fn known_hosts_name(device: &Device) -> String {
    let host = device.host.to_ascii_lowercase();
    if device.port == 22 { host } else { format!("[{host}]:{}", device.port) }
}

/// The public key that logs in to devices, in one line without options; the pair is made once.
///
/// # Errors
/// The folder or the key cannot be made, or the private key is readable by others.
pub fn own_key(paths: &Paths) -> Result<String, EnrollError> {
    pair(paths, paths.key(), &["-t", "ed25519"])
}

/// As [`own_key`], for a device that shows this host key: a server without Ed25519 for itself may know no such keys at all
/// (dropbear before 2020.79, which OpenWrt up to 19.07 has), and gets one of RSA.
///
/// # Errors
/// As [`own_key`].
pub fn own_key_for(paths: &Paths, host_key: &HostKey) -> Result<String, EnrollError> {
    if host_key.algorithm == ED25519 { own_key(paths) } else { pair(paths, paths.rsa_key(), &["-t", "rsa", "-b", RSA_BITS]) }
}

/// The private keys that may log in to a device, the likeliest first: of one that was added before it had a key of RSA, the other one.
#[must_use]
pub fn identities(paths: &Paths, device: &Device) -> Vec<PathBuf> {
    let rsa = host_algorithm(paths, device).is_some_and(|algorithm| algorithm != ED25519) && paths.rsa_key().exists();
    rsa.then(|| paths.rsa_key()).into_iter().chain([paths.key()]).collect()
}

/// What ssh is told besides: a server whose host key is RSA may sign and take signatures only with SHA-1, which ssh refuses by itself. The
/// host key is pinned.
#[must_use]
pub(super) fn algorithms(paths: &Paths, device: &Device) -> &'static [&'static str] {
    match host_algorithm(paths, device).as_deref() {
        // The second word's older spelling is known to every OpenSSH.
        Some("ssh-rsa") => &["HostKeyAlgorithms=+ssh-rsa", "PubkeyAcceptedKeyTypes=+ssh-rsa"],
        _ => &[],
    }
}

fn host_algorithm(paths: &Paths, device: &Device) -> Option<String> {
    pinned(paths, device).ok()?.into_iter().next().map(|key| key.algorithm)
}

fn pair(paths: &Paths, key: PathBuf, kind: &[&str]) -> Result<String, EnrollError> {
    private_folder(&paths.keys()).map_err(|cause| file(&paths.keys(), cause))?;
    if !key.exists() {
        keygen(&key, &[kind, &["-q", "-N", "", "-C", "opmas"]].concat())?;
    }
    let wrong = |why: &str| EnrollError::Key { path: key.display().to_string(), why: why.to_owned() };
    if fs::metadata(&key).map_err(|cause| file(&key, cause))?.mode() & 0o077 != 0 {
        return Err(wrong("others may read this private key; run `chmod 600` on it"));
    }
    let public = key.with_extension("pub");
    if !public.exists() {
        let text = keygen(&key, &["-y", "-P", ""])?;
        replace(&public, &text, 0o644).map_err(|cause| file(&public, cause))?;
    }
    let text = fs::read_to_string(&public).map_err(|cause| file(&public, cause))?;
    match text.lines().next() {
        Some(line) if line.starts_with("ssh-") => Ok(line.trim().to_owned()),
        _ => Err(wrong("its .pub file holds no public key; make it again with `ssh-keygen -y`")),
    }
}

/// What ssh-keygen prints when it makes the key or its public half.
fn keygen(key: &Path, args: &[&str]) -> Result<String, EnrollError> {
    let output = Command::new("ssh-keygen")
        .args(args)
        .arg("-f")
        .arg(key)
        .stdin(Stdio::null())
        .output()
        .map_err(|cause| EnrollError::Tool { tool: "ssh-keygen", cause })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(EnrollError::Key { path: key.display().to_string(), why: format!("the key cannot be made: {said}") })
}

/// What the script of [`script`] prints when all of it is done.
pub const INSTALLED: &str = "opmas: the helper is installed";

/// What a device's own shell runs to be enrolled: the helper is put in place, then our key may run nothing else. It can be run again.
///
/// # Errors
/// Our key cannot be made, or the actions cannot be read.
pub fn script(paths: &Paths, shipped: &[SourceFile], device: &Device) -> Result<String, EnrollError> {
    let public = match pinned(paths, device)?.first() {
        Some(host_key) => own_key_for(paths, host_key)?,
        None => own_key(paths)?,
    };
    let read = |error: SetupError| EnrollError::Key { path: paths.base.join("playbooks").display().to_string(), why: error.to_string() };
    let (helper, revision) = report::helper(&setup::catalogue(paths, shipped).map_err(read)?, paths, device);
    let line = format!("command=\"exec {HELPER}\",{OPTIONS} {public}");
    let blob = public.split_whitespace().nth(1).unwrap_or_default();
    let fits = match device.platform {
        Platform::OpenwrtFw3 => {
            r#"command -v fw3 >/dev/null || no "it has no fw3: its platform in devices.toml is \"openwrt-fw4\", or \"linux\" where there is no OpenWrt""#
        }
        Platform::OpenwrtFw4 | Platform::Linux => {
            r#"other=; command -v fw3 >/dev/null && other=': write platform = "openwrt-fw3" for it in devices.toml'
command -v nft >/dev/null || no "it has no nft$other""#
        }
    };
    Ok(format!(
        r#"{LINES}umask 077
PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH
first= line=
{fits}
[ -e /etc/opmas ] || first=1
helper() {{ cat <<'{revision}'
{helper}{revision}
}}
why=$({{ mkdir -p /etc/opmas && helper >{HELPER}.new && helper | cmp - {HELPER}.new && sh -n {HELPER}.new && chmod 700 {HELPER}.new &&
  sync {HELPER}.new && mv -f {HELPER}.new {HELPER}; }} 2>&1) || no "the helper cannot be put in place: $why"
[ ! -e /etc/sysupgrade.conf ] || grep -qxF /etc/opmas/ /etc/sysupgrade.conf || {{ line=/etc/opmas/; anew /etc/sysupgrade.conf -xF /etc/opmas/; }}
keys=/etc/dropbear/authorized_keys; [ -d /etc/dropbear ] || {{ keys=$HOME/.ssh/authorized_keys; mkdir -p "$HOME/.ssh"; }}
[ -e "$keys" ] || why=$(touch "$keys" 2>&1) || no "$why"
line='{line}'; anew "$keys" -F '{blob}'
grep -qxF "$line" "$keys" || no "$keys does not have the line of opmas"
echo '{INSTALLED}'
"#
    ))
}

/// An ssh that runs a shell on a device whose host key is pinned: with these keys alone when they are ours, else also with what ssh finds by itself.
#[must_use]
pub fn session(paths: &Paths, device: &Device, identities: &[PathBuf], batch: bool) -> Command {
    let mut ssh = Command::new("ssh");
    let ours = identities.contains(&paths.key());
    let known = format!("UserKnownHostsFile={}", quoted(&paths.known_hosts()));
    let alone = if ours { "IdentitiesOnly=yes" } else { "IdentitiesOnly=no" };
    let agent = if ours { "IdentityAgent=none" } else { "IdentityAgent=SSH_AUTH_SOCK" };
    let batch = if batch { "BatchMode=yes" } else { "BatchMode=no" };
    let options = ["StrictHostKeyChecking=yes", &known, "GlobalKnownHostsFile=/dev/null", "ConnectTimeout=10", alone, agent, batch];
    for option in options.iter().chain(algorithms(paths, device)) {
        ssh.args(["-o", option]);
    }
    for identity in identities {
        ssh.args(["-o", &format!("IdentityFile={}", quoted(identity))]);
    }
    ssh.args(["-T", "-F", "none", "-p", &device.port.to_string(), "-l", &device.user, "--", &device.host, "sh -s"]);
    ssh
}

/// The command that pins the device's key anew and prints the line for it.
#[must_use]
pub fn command(device: &Device) -> String {
    let place = match device.port {
        22 => device.host.clone(),
        port if device.host.contains(':') => format!("[{}]:{port}", device.host),
        port => format!("{}:{port}", device.host),
    };
    format!("opmas device add {}@{place} --name {}", device.user, device.name)
}

/// The line for `/etc/dropbear/authorized_keys`.
#[must_use]
pub fn authorized_line(public: &str) -> String {
    format!("{OPTIONS} {public}")
}

/// How the device comes to accept our key: the line for it, or how to see the line when it is too long to be repeated here.
#[must_use]
pub fn let_in(paths: &Paths, device: &Device) -> String {
    let key = identities(paths, device).into_iter().next().unwrap_or_else(|| paths.key());
    let public = fs::read_to_string(key.with_extension("pub")).unwrap_or_default();
    match public.lines().next().map(str::trim) {
        Some(line) if (1..=MAX_KEY).contains(&line.len()) => format!("put this line into its {AUTHORIZED}: {}", authorized_line(line)),
        _ => format!("put the line into its {AUTHORIZED} that `{}` prints", command(device)),
    }
}

/// Writes a file aside, flushes it and puts it in place, so that it is never half there.
///
/// # Errors
/// The folder cannot be written.
pub fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut new = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&aside)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(&aside, path)
}

fn file(path: &Path, cause: io::Error) -> EnrollError {
    EnrollError::File { path: path.display().to_string(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReVVvLwmlKr4DjPTW2JuGKy9lLmxBmB";

    fn device(port: u16) -> Device {
        Device { port, ..Device::new("ap1", "Router.lan") }
    }

    #[test]
    fn a_second_key_takes_the_place_of_the_first_of_that_host_only() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(&dir.path().join("opmas.toml"), &dir.path().join("data")).unwrap();
        let key = HostKey { algorithm: "ssh-ed25519".into(), key: KEY.into() };
        pin(&paths, &device(22), &key).unwrap();
        pin(&paths, &device(22), &key).unwrap();
        pin(&paths, &device(2222), &key).unwrap();
        let text = fs::read_to_string(paths.known_hosts()).unwrap();
        assert_eq!(text, format!("router.lan ssh-ed25519 {KEY}\n[router.lan]:2222 ssh-ed25519 {KEY}\n"));
        let other = HostKey { algorithm: "ssh-ed25519".into(), key: KEY.replace('K', "L") };
        pin(&paths, &device(22), &other).unwrap();
        assert!(pinned(&paths, &device(22)).unwrap().iter().eq([&other]));
        assert_eq!(fs::read_to_string(paths.known_hosts()).unwrap(), format!("[router.lan]:2222 ssh-ed25519 {KEY}\nrouter.lan ssh-ed25519 {}\n", other.key));
    }

    #[test]
    fn the_command_names_the_device_as_it_is_typed() {
        assert_eq!(command(&device(22)), "opmas device add root@Router.lan --name ap1");
        assert_eq!(command(&device(2222)), "opmas device add root@Router.lan:2222 --name ap1");
        assert_eq!(command(&Device { host: "fd00::1".into(), ..device(2222) }), "opmas device add root@[fd00::1]:2222 --name ap1");
    }

    #[test]
    fn only_keys_are_taken_from_a_scan() {
        assert_eq!(parse("# 192.168.1.1:22 SSH-2.0-dropbear"), None);
        assert_eq!(parse("h ssh-ed25519 not-base64!"), None);
        assert!(parse(&format!("h ssh-ed25519 {KEY}")).is_some_and(|key| key.fingerprint().starts_with("SHA256:")));
    }
}
