//! Child processes of our own: the executor and the playbook worker.
//!
//! The engine starts its own binary under another name ([`Peer::spawn`]) and speaks to it in framed JSON ([`frame`]) over a
//! socket pair that is the child's standard input. The child takes that socket ([`Channel::from_stdin`]) and then gives up
//! what it does not need ([`confine`]). A child never outlives the engine: the kernel kills it.

use serde::{Deserialize, Serialize};

mod channel;
mod confine;
mod frame;
mod landlock;
mod peer;
mod probe;
mod seccomp;
mod spawn;

pub use channel::Channel;
pub use confine::{ConfineError, Confinement, Sockets, allow_cpu, confine};
pub use frame::{FrameError, MAX_FRAME};
pub use peer::{Child, Peer, PeerRx, PeerTx};
pub use probe::{Attempt, probe};
pub use spawn::spawn;

/// Which of our own processes a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// `opmas-executor`: holds the ssh keys and carries out steps.
    Executor,
    /// `opmas-worker`: runs playbook scripts, without files and network.
    Worker,
}

impl Role {
    /// The name that the child is started under, its `argv[0]`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Executor => "opmas-executor",
            Role::Worker => "opmas-worker",
        }
    }
}

/// The role that a process was started in, from its `argv[0]`, with or without folders before the name; `None` is the command line.
#[must_use]
pub fn role(argv0: &str) -> Option<Role> {
    let name = argv0.rsplit('/').next().unwrap_or(argv0);
    [Role::Executor, Role::Worker].into_iter().find(|role| role.name() == name)
}
