//! The engine's side: a child process and the framed connection to it.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;

use super::frame::{self, FrameError};
use super::{Role, spawn};

/// What is read from the socket at once.
const READ: usize = 64 << 10;

/// A child process and the connection to it. Dropping it kills the child.
#[derive(Debug)]
pub struct Peer {
    tx: PeerTx,
    rx: PeerRx,
    child: Child,
}

impl Peer {
    /// Starts this very binary (`/proc/self/exe`) in another role.
    ///
    /// The child has the role's name as `argv[0]`, the connection as standard input, `/dev/null` as standard output, our
    /// standard error, one word for the allocator as its environment and no other descriptor; the kernel kills it when this process ends,
    /// however it ends.
    /// To be called within a tokio runtime; blocks for the milliseconds that a fork takes.
    ///
    /// # Errors
    /// The kernel starts no more processes, or has no `/proc`.
    pub fn spawn(role: Role, args: &[String]) -> io::Result<Peer> {
        Peer::spawn_program(Path::new("/proc/self/exe"), role, args)
    }

    /// The same with another binary.
    ///
    /// # Errors
    /// As [`Peer::spawn`], and when `program` cannot be executed.
    pub fn spawn_program(program: &Path, role: Role, args: &[String]) -> io::Result<Peer> {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        let mut command = Command::new(program);
        command.arg0(role.name()).args(args).env_clear().kill_on_drop(true);
        // Without it the allocator sets 1 GiB of addresses aside at once, more than a confined process may have in all.
        command.env("MIMALLOC_ARENA_RESERVE", "0");
        command.stdin(std::os::fd::OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit());
        let child = Child { process: spawn::spawn(command)? };
        let (rx, tx) = ours.into_split();
        Ok(Peer { tx: PeerTx::new(tx), rx: PeerRx::new(rx), child })
    }

    /// Sends a message, as [`PeerTx::send`].
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn send<T: Serialize>(&mut self, value: &T) -> Result<(), FrameError> {
        self.tx.send(value).await
    }

    /// The next message, as [`PeerRx::recv`].
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        self.rx.recv().await
    }

    /// The parts, for tasks of their own. The child is killed when its part is dropped.
    #[must_use]
    pub fn split(self) -> (PeerTx, PeerRx, Child) {
        (self.tx, self.rx, self.child)
    }

    /// The child, to ask for its process id or how it ended.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Kills the child at once and waits until it is gone.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}

/// A child process. Dropping it kills the process.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
}

impl Child {
    /// Its process id; `None` once it has been waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits for its end. Cancel safe.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Kills it at once and waits until it is gone.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.process.kill().await
    }
}

/// The sending half.
#[derive(Debug)]
pub struct PeerTx {
    socket: OwnedWriteHalf,
}

impl PeerTx {
    pub(super) fn new(socket: OwnedWriteHalf) -> PeerTx {
        PeerTx { socket }
    }

    /// Sends a message; waits while the other side does not read. Not cancel safe: a cut frame makes the connection useless.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn send<T: Serialize>(&mut self, value: &T) -> Result<(), FrameError> {
        Ok(self.socket.write_all(&frame::encode(value)?).await?)
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct PeerRx {
    socket: OwnedReadHalf,
    /// At most one frame and one read beyond it.
    received: Vec<u8>,
}

impl PeerRx {
    pub(super) fn new(socket: OwnedReadHalf) -> PeerRx {
        PeerRx { socket, received: Vec::new() }
    }

    /// The next message; `None` when the other side has closed between frames, which a child does by ending. Cancel safe.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            if let Some(value) = frame::take(&mut self.received)? {
                return Ok(Some(value));
            }
            self.received.reserve(READ);
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return if self.received.is_empty() { Ok(None) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) };
            }
        }
    }
}
