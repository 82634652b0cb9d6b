//! Our child processes, with the real binary: frames, confinement, and that they end with us.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use opmas::playbook::worker::{Hello, Probed};
use opmas::process::{Confinement, Peer, Role, role};

const OPMAS: &str = env!("CARGO_BIN_EXE_opmas");

async fn probe(confinement: Confinement) -> Probed {
    let mut peer = Peer::spawn_program(Path::new(OPMAS), Role::Worker, &["probe".into()]).unwrap();
    peer.send(&confinement).await.unwrap();
    peer.recv().await.unwrap().unwrap()
}

fn allowed(probed: &Probed) -> BTreeSet<&str> {
    probed.attempts.iter().filter(|a| a.refused.is_none()).map(|a| a.what.as_str()).collect()
}

/// What is to be allowed, with what this kernel says that it cannot prevent.
fn with_what_this_kernel_cannot<const N: usize>(probed: &Probed, allowed: [&'static str; N]) -> BTreeSet<&'static str> {
    let lacks = |word: &str| probed.cannot_enforce.iter().any(|sentence| sentence.contains(word));
    let more = [("TCP port", "tcp connect"), ("signal others", "signal to init")];
    allowed.into_iter().chain(more.into_iter().filter(|(word, _)| lacks(word)).map(|(_, what)| what)).collect()
}

#[test]
fn a_role_is_the_name_after_the_last_slash() {
    assert_eq!(role("opmas-worker"), Some(Role::Worker));
    assert_eq!(role("/usr/bin/opmas-executor"), Some(Role::Executor));
    assert_eq!(role("opmas"), None);
    assert_eq!(role("opmas-worker2"), None);
}

#[tokio::test]
async fn a_worker_can_open_nothing_start_nothing_and_reach_nobody() {
    let probed = probe(Confinement::worker()).await;
    assert!(probed.attempts.len() > 15);
    assert_eq!(allowed(&probed), BTreeSet::new());
}

#[tokio::test]
async fn an_executor_reads_writes_and_executes_what_it_was_given_only() {
    let probed = probe(Confinement::executor()).await;
    assert_eq!(allowed(&probed), with_what_this_kernel_cannot(&probed, ["udp socket", "unix socket", "fork", "thread"]));
    let exec = ["/bin/true", "/lib64", "/lib", "/usr/lib"].map(PathBuf::from).to_vec();
    let given = Confinement {
        read: vec!["/etc".into(), "/lib".into()],
        write: vec![std::env::temp_dir(), "/dev/null".into()],
        exec,
        connect_ports: vec![1],
        ..Confinement::executor()
    };
    let probed = probe(given).await;
    let given = ["read /etc/passwd", "write /tmp", "udp socket", "tcp connect", "unix socket", "execute", "fork", "thread"];
    assert_eq!(allowed(&probed), with_what_this_kernel_cannot(&probed, given));
}

#[tokio::test]
async fn a_worker_says_hello_and_ends_when_the_connection_closes() {
    let mut peer = Peer::spawn_program(Path::new(OPMAS), Role::Worker, &[]).unwrap();
    let hello: Hello = peer.recv().await.unwrap().unwrap();
    println!("{hello:?}");
    let (tx, rx, mut child) = peer.split();
    drop((tx, rx));
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn signals_to_the_whole_group_do_not_end_a_worker_before_the_connection_does() {
    use rustix::process::{Pid, Signal, kill_process};
    let mut peer = Peer::spawn_program(Path::new(OPMAS), Role::Worker, &["probe".into()]).unwrap();
    let pid = Pid::from_raw(peer.child().id().unwrap() as i32).unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        kill_process(pid, signal).unwrap();
    }
    peer.send(&Confinement::worker()).await.unwrap();
    let probed: Option<Probed> = peer.recv().await.unwrap();
    assert!(probed.is_some(), "it still answers");

    let mut peer = Peer::spawn_program(Path::new(OPMAS), Role::Worker, &[]).unwrap();
    peer.recv::<Hello>().await.unwrap().unwrap();
    let pid = Pid::from_raw(peer.child().id().unwrap() as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let (tx, rx, mut child) = peer.split();
    drop((tx, rx));
    assert!(child.wait().await.unwrap().success());
}

/// Set in the process that [`a_parent`] is run in.
const IN_PARENT: &str = "OPMAS_TEST_PARENT";

/// Not a test by itself: started again in a process of its own by the tests below, it starts a worker from a thread of a runtime
/// that ends, says the worker's process id, and lives on until it is killed.
#[test]
fn a_parent() {
    if std::env::var_os(IN_PARENT).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let spawn = async { Peer::spawn_program(Path::new(OPMAS), Role::Worker, &[]).unwrap() };
    let mut peer = runtime.block_on(runtime.spawn(spawn)).unwrap();
    runtime.block_on(peer.recv::<Hello>()).unwrap().unwrap();
    println!("worker {}", peer.child().id().unwrap());
    std::mem::forget(peer);
    runtime.shutdown_timeout(Duration::from_secs(5));
    println!("ended");
    std::thread::sleep(Duration::from_secs(60));
}

/// A parent process, killed at the latest when the test ends, and its worker's process id.
struct Parent(std::process::Child, u32);

impl Drop for Parent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn parent() -> Parent {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "process::a_parent", "--nocapture"]).env(IN_PARENT, "1").stdout(std::process::Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut worker = None;
    for line in BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok) {
        if let Some((_, pid)) = line.split_once("worker ") {
            worker = pid.parse().ok();
        }
        if line.ends_with("ended") {
            break;
        }
    }
    Parent(process, worker.expect("the parent started a worker"))
}

#[test]
fn a_worker_outlives_the_runtime_thread_that_asked_for_it_but_not_the_process() {
    let parent = parent();
    let worker = parent.1;
    assert!(!within(Duration::from_millis(200), || !runs(worker)), "it was killed with a thread");
    drop(parent);
    assert!(within(Duration::from_secs(2), || !runs(worker)), "it outlived its parent");
}

#[tokio::test]
async fn a_dropped_peer_is_killed() {
    let mut peer = Peer::spawn_program(Path::new(OPMAS), Role::Worker, &[]).unwrap();
    peer.recv::<Hello>().await.unwrap();
    let worker = peer.child().id().unwrap();
    assert!(runs(worker));
    drop(peer);
    assert!(within(Duration::from_secs(2), || !runs(worker)));
}

#[tokio::test]
async fn a_child_has_nothing_of_our_environment_and_no_descriptor_of_ours() {
    let file = tempfile::NamedTempFile::new().unwrap();
    rustix::io::fcntl_setfd(file.as_file(), rustix::io::FdFlags::empty()).unwrap();
    let mut peer = Peer::spawn_program(Path::new(OPMAS), Role::Worker, &["probe".into()]).unwrap();
    let pid = peer.child().id().unwrap();
    // The worker waits for what to put on, so that it can be looked at.
    assert!(within(Duration::from_secs(2), || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap().starts_with(b"opmas-worker")));
    assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).unwrap(), b"MIMALLOC_ARENA_RESERVE=0\0");
    let open =
        |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().any(|fd| std::fs::read_link(fd.unwrap().path()).is_ok_and(|to| to == file.path()));
    assert!(open(std::process::id()) && !open(pid));
    peer.kill().await.unwrap();
}

/// Whether a process runs: present and no zombie, since not every init reaps.
fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit(')').next().unwrap().split_whitespace().next() != Some("Z")
}

fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}
