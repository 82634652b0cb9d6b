//! The child's side of the socket pair.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{self, FrameError};
use super::{PeerRx, PeerTx};

/// The child's end of the connection to the engine. Blocking.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
}

impl Channel {
    /// Takes the connection from standard input, and puts `/dev/null` in its place, so that no process that this one
    /// starts holds it. To be called first, before [`super::confine`].
    ///
    /// # Errors
    /// Standard input is no socket: the process was not started by [`super::Peer::spawn`].
    pub fn from_stdin() -> io::Result<Channel> {
        let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        stream.peer_addr().map_err(|_| io::Error::other("this program is started by opmas itself, not by hand"))?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        Ok(Channel { stream })
    }

    /// The next message; `None` when the engine has closed the connection, which ends the process.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        frame::read(&mut self.stream)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn write<T: Serialize>(&mut self, value: &T) -> Result<(), FrameError> {
        frame::write(&mut self.stream, value)
    }

    /// The same connection for a child that runs tokio. To be called within a runtime.
    ///
    /// # Errors
    /// The runtime cannot watch the socket.
    pub fn into_tokio(self) -> io::Result<(PeerTx, PeerRx)> {
        self.stream.set_nonblocking(true)?;
        let (rx, tx) = tokio::net::UnixStream::from_std(self.stream)?.into_split();
        Ok((PeerTx::new(tx), PeerRx::new(rx)))
    }
}
