//! One ssh connection to one device: `ssh -M -N` in the foreground, which dies with us, and the session attached to it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use openssh::Session;
use rustix::process::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::enroll;
use super::paths::Paths;
use crate::model::Device;
use crate::process::Role;

/// ssh's own limit for the TCP connection and the server's first words.
const CONNECT_S: u64 = 5;
/// From the start of ssh to a usable session: the TCP connection, key exchange and login of a slow device.
const READY: Duration = Duration::from_secs(12);
/// A silent peer is asked this often; after [`ALIVE_COUNT`] unanswered questions the connection is lost.
const ALIVE_S: u64 = 5;
/// See [`ALIVE_S`].
const ALIVE_COUNT: u64 = 2;
/// Most bytes of what ssh says that are kept: the first ones, which name the cause.
const MAX_SAID: usize = 8 << 10;
/// How often the control socket is looked for while connecting; a login takes tens of milliseconds.
const LOOK: Duration = Duration::from_millis(4);

/// Why there is no connection. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConnectError {
    /// The device shows another key than the pinned one.
    #[error(
        "host key of {device} is not the pinned one: it shows {shown}; if the device was reinstalled, run `{add}` and compare the fingerprint, else somebody may stand in between"
    )]
    OtherKey { device: String, shown: String, add: String },
    /// No key is pinned.
    #[error("host key of {device} ({host}) is not pinned; run `{add}`")]
    NotPinned { device: String, host: String, add: String },
    /// The device does not take our key.
    #[error("{device} does not accept the key of opmas; {remedy}")]
    KeyRefused { device: String, remedy: String },
    /// We have no key.
    #[error("there is no key to log in with; run `{add}`, which makes {key}, and put the line that it prints on every device")]
    NoKey { key: String, add: String },
    /// Our key cannot be used.
    #[error(
        "the key {key} cannot be used: {cause}; it must be a private ssh key without passphrase, readable only by its owner; without one, `{add}` makes it and prints the line for the device"
    )]
    Key { key: String, cause: String, add: String },
    /// Nothing answers there.
    #[error("{device} ({host}) cannot be reached: {cause}")]
    Unreachable { device: String, host: String, cause: String },
    /// ssh cannot be run here.
    #[error("ssh cannot be started: {0}; install OpenSSH's client")]
    Ssh(String),
}

/// A live connection. Dropping it ends ssh and with it every command on the device.
#[derive(Debug)]
pub(super) struct Master {
    /// To run commands with.
    pub session: Session,
    /// How long connecting took.
    pub took: Duration,
    /// It runs the helper and nothing else.
    pub enrolled: bool,
    socket: PathBuf,
    gone: watch::Receiver<Option<String>>,
    task: JoinHandle<()>,
}

impl Master {
    /// Connects and logs in. The current folder is the one for control sockets, so that their paths are short whatever the
    /// data folder is called (a socket's path has at most 107 bytes).
    pub async fn connect(device: &Device, paths: &Paths, socket: &Path) -> Result<Master, ConnectError> {
        let started = Instant::now();
        // A master that was killed leaves its socket behind, and ssh does not bind over it.
        let _ = fs::remove_file(socket);
        let command = command(device, paths, socket);
        let child = crate::process::spawn(command).map_err(|e| ConnectError::Ssh(e.to_string()))?;
        let (tell, gone) = watch::channel(None);
        let task = tokio::spawn(attend(child, tell));
        let mut master = Master {
            session: Session::resume_mux(socket.into(), None),
            took: Duration::ZERO,
            enrolled: device.enrolled,
            socket: socket.to_owned(),
            gone,
            task,
        };
        master.ready(device, paths).await?;
        master.took = started.elapsed();
        Ok(master)
    }

    /// Waits until ssh listens on its control socket, which it does once it has logged in.
    async fn ready(&mut self, device: &Device, paths: &Paths) -> Result<(), ConnectError> {
        let deadline = tokio::time::Instant::now() + READY;
        while !self.socket.exists() {
            tokio::select! {
                said = gone(self.gone.clone()) => return Err(explain(&said, device, paths)),
                () = tokio::time::sleep_until(deadline) => {
                    return Err(unreachable(device, format!("no login within {} s", READY.as_secs())));
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        Ok(())
    }

    /// Resolves when ssh has ended, with what it said.
    pub fn gone(&self) -> impl Future<Output = String> + use<> {
        gone(self.gone.clone())
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // The task owns the child, which is killed when dropped.
        self.task.abort();
        let _ = fs::remove_file(&self.socket);
    }
}

async fn gone(mut watched: watch::Receiver<Option<String>>) -> String {
    match watched.wait_for(Option::is_some).await {
        Ok(said) => said.clone().unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// Waits for the end of ssh and tells what it said.
async fn attend(mut child: Child, tell: watch::Sender<Option<String>>) {
    let said = match child.stderr.take() {
        Some(stderr) => listen(stderr).await,
        None => String::new(),
    };
    let _ = child.wait().await;
    let _ = tell.send(Some(said));
}

async fn listen(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0u8; 1024];
    while let Ok(n) = stderr.read(&mut chunk).await {
        if n == 0 {
            break;
        }
        let room = MAX_SAID.saturating_sub(kept.len());
        kept.extend_from_slice(chunk.get(..n.min(room)).unwrap_or_default());
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// A path as ssh's options take it: in quotes, with what is special inside them made plain.
pub(super) fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', r"\\").replace('"', r#"\""#).replace('%', "%%"))
}

fn command(device: &Device, paths: &Paths, socket: &Path) -> Command {
    let mut command = Command::new(super::sandbox::ssh());
    command.args(["-M", "-N", "-T", "-F", "none", "-S"]).arg(socket);
    for option in [
        "BatchMode=yes".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        format!("UserKnownHostsFile={}", quoted(&paths.known_hosts())),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "UpdateHostKeys=no".to_owned(),
        "CheckHostIP=no".to_owned(),
        "VerifyHostKeyDNS=no".to_owned(),
        "IdentitiesOnly=yes".to_owned(),
        "IdentityAgent=none".to_owned(),
        "PreferredAuthentications=publickey".to_owned(),
        "ControlPersist=no".to_owned(),
        "ForwardAgent=no".to_owned(),
        "ForwardX11=no".to_owned(),
        "ClearAllForwardings=yes".to_owned(),
        "PermitLocalCommand=no".to_owned(),
        "ConnectionAttempts=1".to_owned(),
        format!("ConnectTimeout={CONNECT_S}"),
        format!("ServerAliveInterval={ALIVE_S}"),
        format!("ServerAliveCountMax={ALIVE_COUNT}"),
    ]
    .into_iter()
    .chain(enroll::algorithms(paths, device).iter().map(|option| (*option).to_owned()))
    .chain(enroll::identities(paths, device).iter().map(|key| format!("IdentityFile={}", quoted(key))))
    {
        command.arg("-o").arg(option);
    }
    command.arg("-p").arg(device.port.to_string()).arg("-l").arg(&device.user).arg("--").arg(&device.host);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn unreachable(device: &Device, cause: impl Into<String>) -> ConnectError {
    ConnectError::Unreachable { device: device.name.to_string(), host: format!("{}:{}", device.host, device.port), cause: cause.into() }
}

/// What ssh's words mean. Its texts have been stable for many years; what is not known is passed on.
fn explain(said: &str, device: &Device, paths: &Paths) -> ConnectError {
    let name = device.name.to_string();
    let own = enroll::identities(paths, device).into_iter().next().unwrap_or_else(|| paths.key());
    let key = own.display().to_string();
    let add = enroll::command(device);
    if said.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let shown = said.split_whitespace().map(|word| word.trim_end_matches('.')).find(|word| word.starts_with("SHA256:"));
        return ConnectError::OtherKey { device: name, shown: shown.unwrap_or("another one").to_owned(), add };
    }
    if said.contains("Host key verification failed") || said.contains("host key is known for") {
        return ConnectError::NotPinned { device: name, host: format!("{}:{}", device.host, device.port), add };
    }
    if !own.exists() && said.contains("Permission denied") {
        return ConnectError::NoKey { key, add };
    }
    if let Some(cause) = key_trouble(said) {
        return ConnectError::Key { key, cause, add };
    }
    if said.contains("Permission denied") || said.contains("Too many authentication failures") {
        return ConnectError::KeyRefused { device: name, remedy: enroll::let_in(paths, device) };
    }
    unreachable(device, cause(said))
}

/// What is wrong with the key file, when ssh could not load it.
fn key_trouble(said: &str) -> Option<String> {
    if said.contains("UNPROTECTED PRIVATE KEY FILE") {
        return Some("others may read it".to_owned());
    }
    let line = said.lines().map(str::trim).find(|l| l.starts_with("Load key ") || (l.starts_with("no such identity:")))?;
    Some(line.rsplit(": ").next().unwrap_or(line).to_owned())
}

/// The reason in `ssh: connect to host H port P: reason`, else the last thing said.
fn cause(said: &str) -> String {
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    match last {
        Some(line) => line.rsplit_once(": ").map_or(line, |(_, reason)| reason).chars().take(200).collect(),
        None => "ssh ended without a word".to_owned(),
    }
}

/// A name for a control socket: short, the same for the same device.
pub(super) fn socket_name(device: &Device) -> PathBuf {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(device.name.as_bytes());
    PathBuf::from(crate::model::hex(digest.get(..6).unwrap_or_default()))
}

/// Takes away control folders of executors that are no more, also one that had this process's number. `folder` is `DATA/ctl`.
pub(super) fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if pid.is_some_and(|pid| pid == rustix::process::getpid() || !is_executor(pid)) {
            // Another executor may be sweeping too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Whether the process runs and is an executor, as far as can be seen: its number may have gone to another one.
fn is_executor(pid: Pid) -> bool {
    if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
        return false;
    }
    // Where /proc hides the processes of others, one that lives may be an executor.
    fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).map_or(true, |line| {
        let name = line.split(|byte| *byte == 0).next().unwrap_or_default();
        crate::process::role(&String::from_utf8_lossy(name)) == Some(Role::Executor)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(said: &str) -> String {
        let device = Device::new("ap1", "192.168.1.1");
        let data = tempfile::tempdir().unwrap();
        let paths = Paths::new(Path::new("/c/opmas.toml"), data.path()).unwrap();
        enroll::own_key(&paths).unwrap();
        explain(said, &device, &paths).to_string()
    }

    #[test]
    fn what_ssh_says_becomes_a_cause_and_a_remedy() {
        for (said, words) in [
            ("ssh: connect to host 192.168.1.1 port 22: No route to host\r\n", "ap1 (192.168.1.1:22) cannot be reached: No route to host"),
            ("ssh: Could not resolve hostname ap1: Name or service not known", "cannot be reached: Name or service not known"),
            (
                "No ED25519 host key is known for 192.168.1.1 and you have requested strict checking.\nHost key verification failed.",
                "is not pinned; run `opmas device add root@192.168.1.1 --name ap1`",
            ),
            ("root@192.168.1.1: Permission denied (publickey,password).", "put this line into its /etc/dropbear/authorized_keys: no-port-forwarding,"),
            ("Load key \"/d/keys/id_ed25519\": error in libcrypto\nroot@h: Permission denied (publickey).", "cannot be used: error in libcrypto"),
            (
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nsent by the remote host is\nSHA256:abc.\nHost key verification failed.",
                "it shows SHA256:abc;",
            ),
            ("Connection timed out during banner exchange", "cannot be reached: Connection timed out during banner exchange"),
            ("", "ssh ended without a word"),
        ] {
            let told = explained(said);
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn folders_of_executors_that_are_no_more_are_taken_away() {
        use std::os::unix::process::CommandExt;
        let dir = tempfile::tempdir().unwrap();
        let mut running = std::process::Command::new("sleep").arg0("opmas-executor").arg("60").spawn().unwrap();
        // The kernel lets the spawner go before it shows the new command line.
        while fs::read(format!("/proc/{}/cmdline", running.id())).unwrap().is_empty() {
            std::thread::yield_now();
        }
        // The first process and this test live, but are no executors; no process has the last number.
        let names = [running.id(), 1, std::process::id(), 4_194_305].map(|pid| pid.to_string());
        for name in names.iter().map(String::as_str).chain(["kept"]) {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("socket"), "").unwrap();
        }
        sweep(dir.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(left, [&names[0], "kept"]);
    }

    #[test]
    fn paths_go_into_options_as_they_are() {
        assert_eq!(quoted(Path::new(r#"/a b/100%/"q"/\"#)), r#""/a b/100%%/\"q\"/\\""#);
    }
}
