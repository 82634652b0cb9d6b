//! What a child gives up before it looks at anything that came from outside.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::set_no_new_privs;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{Role, landlock, seccomp};

/// Which sockets a process may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sockets {
    /// None; those that it has go on working.
    None,
    /// Unix and internet sockets, and netlink, which resolving a host name needs.
    Client,
}

/// What a process keeps. Everything that is not named is given up, for itself and for what it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Chooses the system calls: a worker keeps the few that computing needs, an executor loses those that it never needs.
    pub role: Role,
    /// Files and folders (with all below) that may be read. A path that does not exist permits nothing.
    pub read: Vec<PathBuf>,
    /// Files and folders that may be read and written; in folders files, sockets and folders may be made and removed.
    pub write: Vec<PathBuf>,
    /// Files and folders that may be executed.
    pub exec: Vec<PathBuf>,
    /// TCP ports that may be connected to, at any address.
    pub connect_ports: Vec<u16>,
    /// Sockets that may be made.
    pub sockets: Sockets,
    /// Address space in bytes, of each process.
    pub memory_bytes: u64,
    /// Open descriptors of each process.
    pub open_files: u64,
}

impl Confinement {
    /// A playbook worker: no file, no socket, no process.
    #[must_use]
    pub fn worker() -> Confinement {
        Confinement {
            role: Role::Worker,
            read: Vec::new(),
            write: Vec::new(),
            exec: Vec::new(),
            connect_ports: Vec::new(),
            sockets: Sockets::None,
            memory_bytes: 256 << 20,
            open_files: 16,
        }
    }

    /// An executor without its paths and ports, which the caller adds.
    #[must_use]
    pub fn executor() -> Confinement {
        Confinement { role: Role::Executor, sockets: Sockets::Client, memory_bytes: 1 << 30, open_files: 1024, ..Confinement::worker() }
    }
}

/// Why a process could not be confined. It must not go on then.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// Landlock confines the calling thread only, so that there may be no other yet.
    #[error("the sandbox must be put on before threads start, and {0} are running")]
    Threads(usize),
    /// A limit was refused.
    #[error("the kernel refuses the limit on {what}: {error}")]
    Limit {
        /// Which.
        what: &'static str,
        /// The kernel's word.
        error: io::Error,
    },
    /// Landlock is there and refuses the rules.
    #[error("the kernel refuses the Landlock rules: {0}")]
    Landlock(String),
    /// Seccomp is there and refuses the filter.
    #[error("the kernel refuses the system call filter: {0}")]
    Seccomp(String),
}

/// Confines this process, for good. Returns a sentence for each thing that this kernel cannot enforce.
///
/// To be called from the only thread, before anything from outside is read.
///
/// # Errors
/// See [`ConfineError`]; what was given up before the error stays given up.
pub fn confine(confinement: &Confinement) -> Result<Vec<String>, ConfineError> {
    one_thread()?;
    // Landlock opens the paths that it permits, so it goes before the limits; seccomp takes away what all of this needs.
    let mut cannot = landlock::restrict(confinement)?;
    limits(confinement)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| limit("being traced", e))?;
    set_no_new_privs(true).map_err(|e| limit("new privileges", e))?;
    cannot.extend(seccomp::restrict(confinement)?);
    Ok(cannot)
}

/// Lets this process use `span` of processor time from now on, in whole seconds rounded up; the kernel kills it beyond that.
///
/// # Errors
/// The kernel refuses the limit.
pub fn allow_cpu(span: Duration) -> Result<(), ConfineError> {
    let used = u64::try_from(clock_gettime(ClockId::ProcessCPUTime).tv_sec).unwrap_or(0);
    let seconds = used + 1 + span.as_secs() + u64::from(span.subsec_nanos() > 0);
    // The soft limit only: it moves on with each piece of work.
    let maximum = getrlimit(Resource::Cpu).maximum;
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum }).map_err(|e| limit("processor time", e))
}

/// Without `/proc` the threads cannot be counted, and the caller is believed.
fn one_thread() -> Result<(), ConfineError> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads == 1 { Ok(()) } else { Err(ConfineError::Threads(threads)) }
}

fn limits(confinement: &Confinement) -> Result<(), ConfineError> {
    let set = |what, resource, most: u64| {
        // A limit that is lower already stays.
        let most = getrlimit(resource).maximum.map_or(most, |now| now.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).map_err(|e| limit(what, e))
    };
    set("memory", Resource::As, confinement.memory_bytes)?;
    set("open files", Resource::Nofile, confinement.open_files)?;
    set("core dumps", Resource::Core, 0)
}

fn limit(what: &'static str, error: rustix::io::Errno) -> ConfineError {
    ConfineError::Limit { what, error: error.into() }
}
