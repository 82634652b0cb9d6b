//! A real router in network namespaces (`tests/device/device.sh`), for the tests that need one. One at a time on a machine.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use opmas::executor::{Launch, Paths};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The program under test.
pub const OPMAS: &str = env!("CARGO_BIN_EXE_opmas");
/// The router's address on its LAN.
pub const ROUTER: &str = "192.168.1.1";
/// Where the attacker stands.
pub const ATTACKER: &str = "192.168.1.66";
/// Another client.
pub const OTHER: &str = "192.168.1.77";
/// The address that opmas has.
pub const MANAGER: &str = "192.168.1.2";
/// The same attacker.
pub const ATTACKER6: &str = "fd00:6f70::66";

/// A router and its neighbours; gone when dropped.
pub struct Router {
    /// A folder of the test's own, removed with the router.
    pub dir: tempfile::TempDir,
    prefix: String,
    pub firewall: &'static str,
    /// Held while the namespaces are in use: their names are the machine's.
    _lock: File,
}

/// One process in a namespace.
#[derive(Debug)]
pub struct Process {
    pub pid: i32,
    pub words: Vec<String>,
}

impl Router {
    /// Makes it; waits while another test has it. A router that a killed test left is taken away first.
    pub fn up() -> Router {
        Router::with("fw4")
    }

    /// With `fw4` (nftables) or `fw3` (iptables-legacy and ipset, no nft).
    pub fn with(firewall: &'static str) -> Router {
        let prefix = std::env::var("OPMAS_ROUTER_PREFIX").unwrap_or_else(|_| "opmas-t-".to_owned());
        let lock = File::create(std::env::temp_dir().join(format!("{prefix}router.lock"))).unwrap();
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let router = Router { dir: tempfile::tempdir().unwrap(), prefix, firewall, _lock: lock };
        router.device("up");
        router
    }

    /// Runs one of `device.sh`'s commands: `fw4-reload`, `fw4-stop`, `flush-ours`, `fw3-reload`, `fw3-stop`, `fw3-flush`, `reboot`, `cut`, `join`.
    pub fn device(&self, what: &str) {
        let output = self.script(what).output().unwrap();
        assert!(output.status.success(), "device.sh {what}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn script(&self, what: &str) -> Command {
        let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device/device.sh"));
        // The daemons that it leaves running must not hold our pipes.
        script.arg(what).arg(self.folder()).env("OPMAS_ROUTER_PREFIX", &self.prefix).env("OPMAS_ROUTER_FIREWALL", self.firewall).stdin(Stdio::null());
        script
    }

    /// The folder of the router: `root/` is its file system, `id` a key that it accepts.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("router")
    }

    /// The router's file system.
    pub fn root(&self) -> PathBuf {
        self.folder().join("root")
    }

    /// The file of a namespace: `rt`, `at`, `ot`, `mg`, `fr`.
    pub fn namespace(&self, at: &str) -> PathBuf {
        PathBuf::from(format!("/run/netns/{}{at}", self.prefix))
    }

    /// A command to be run in a namespace.
    pub fn command(&self, at: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("/usr/bin/nsenter");
        command.arg(format!("--net={}", self.namespace(at).display())).arg("--").arg(program);
        command
    }

    /// Runs a shell script in a namespace and gives its standard output; fails the test when it fails.
    pub fn sh(&self, at: &str, script: &str) -> String {
        let output = self.command(at, "bash").args(["-c", script]).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a function on a thread that is in a namespace, to make sockets there.
    pub fn inside<T: Send>(&self, at: &str, make: impl FnOnce() -> T + Send) -> T {
        inside(&self.namespace(at), make)
    }

    /// opmas in the manager's namespace, in a folder.
    pub fn opmas(&self, folder: &Path, args: &[&str]) -> Output {
        self.command("mg", OPMAS).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap()
    }

    /// How to start an executor in the manager's namespace.
    pub fn launch(&self, paths: &Paths) -> Launch {
        let namespace = format!("--net={}", self.namespace("mg").display());
        let mut args: Vec<String> = [&namespace, "--", "/bin/bash", "--norc", "-c", "exec -a opmas-executor \"$0\" \"$@\"", OPMAS].map(str::to_owned).to_vec();
        args.extend(paths.to_args());
        Launch { program: "/usr/bin/nsenter".into(), args }
    }

    /// Whether a TCP connection to the router's ssh comes about from a namespace.
    pub fn reaches(&self, at: &str, address: &str) -> bool {
        let script = format!("exec 3<>/dev/tcp/{address}/22 && head -c 4 <&3 | grep -q SSH-");
        self.command(at, "timeout").args(["1.5", "bash", "-c", &script]).stderr(Stdio::null()).status().unwrap().success()
    }

    /// Logs in with a password and runs a command there; `false` when the router did not let us in.
    pub fn login(&self, at: &str, password: &str, command: &str) -> bool {
        let ask = self.dir.path().join("askpass");
        fs::write(&ask, "#!/bin/sh\necho \"$OPMAS_TEST_PASSWORD\"\n").unwrap();
        fs::set_permissions(&ask, fs::Permissions::from_mode(0o700)).unwrap();
        let mut ssh = self.command(at, "ssh");
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "NumberOfPasswordPrompts=1", "ConnectTimeout=3"] {
            ssh.args(["-o", option]);
        }
        ssh.args(["-F", "none", "-o", "PreferredAuthentications=password", &format!("root@{ROUTER}"), command]);
        ssh.env("SSH_ASKPASS", ask).env("SSH_ASKPASS_REQUIRE", "force").env("OPMAS_TEST_PASSWORD", password);
        ssh.stdin(Stdio::null()).output().unwrap().status.success()
    }

    /// Lets a public key log in on the router.
    pub fn allow(&self, line: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(self.root().join("etc/dropbear/authorized_keys")).unwrap();
        writeln!(file, "{}", line.trim()).unwrap();
    }

    /// The router's host key as `known_hosts` has it.
    pub fn host_key(&self) -> String {
        let line = self.sh("mg", &format!("ssh-keyscan -t ed25519 {ROUTER} 2>/dev/null"));
        line.trim().to_owned()
    }

    /// The router's whole ruleset.
    pub fn nft(&self) -> String {
        self.sh("rt", "nft list ruleset")
    }

    /// What runs in a namespace; zombies are nothing.
    pub fn processes(&self, at: &str) -> Vec<Process> {
        let name = format!("{}{at}", self.prefix);
        let listed = Command::new("ip").args(["netns", "pids", &name]).output().unwrap();
        let pids = String::from_utf8_lossy(&listed.stdout).into_owned();
        pids.lines().filter_map(|line| line.trim().parse().ok()).filter_map(process).collect()
    }

    /// Waits until no process in a namespace has this word among its arguments; fails the test when it takes longer.
    pub fn gone(&self, at: &str, word: &str, within: Duration) {
        eventually(within, &format!("a process with `{word}` still runs in {at}"), || !self.runs(at, word));
    }

    /// Whether a process in a namespace has this word among its arguments.
    pub fn runs(&self, at: &str, word: &str) -> bool {
        self.processes(at).iter().any(|process| process.words.iter().any(|w| w == word))
    }
}

/// Runs a function on a thread that is in a network namespace, to make sockets there.
pub fn inside<T: Send>(namespace: &Path, make: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(namespace).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network)).unwrap();
            make()
        });
        thread.join().unwrap()
    })
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.script("down").stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn process(pid: i32) -> Option<Process> {
    let words: Vec<String> = fs::read(format!("/proc/{pid}/cmdline")).ok()?.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    // A zombie has no command line.
    (words.len() > 1).then_some(Process { pid, words })
}

/// Asks again and again until it is so; fails the test with `otherwise` when it takes longer.
pub fn eventually(within: Duration, otherwise: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !so() {
        assert!(Instant::now() < end, "{otherwise} after {within:?}");
        std::thread::sleep(Duration::from_millis(25));
    }
}
