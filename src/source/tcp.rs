//! Syslog over TCP, with TLS or without: one task a connection.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::framing::Framer;
use super::syslog::Peers;
use super::{Closed, LAST_WAIT, Outlet};

/// Connections at one time.
const MAX_CONNECTIONS: usize = 1024;
/// Beyond them, connections of managed devices only: others cannot lock them out.
const RESERVED_FOR_DEVICES: usize = 256;
/// Connections of one address: a sender needs one, and a few that it has left behind are still open.
const MAX_OF_ONE_ADDRESS: usize = 64;
/// How long a connection may take for its handshake and its first whole message, except one of a managed device, which may have nothing to say.
const FIRST_MESSAGE: Duration = Duration::from_secs(60);
/// Refused connections are told of this often at most.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// A connection without a byte for so long is closed. Routers are silent for long, and connect again when closed.
const IDLE: Duration = Duration::from_secs(6 * 3600);
/// The kernel asks a silent peer whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Bytes of one read.
const READ: usize = 16 * 1024;
/// Reads that are still made when the source stops.
const LAST_READS: usize = 64;
/// How long to wait when no connection can be accepted (no file descriptors left, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts until it is stopped, then waits for the connections' tasks.
pub(super) async fn run(listener: std::net::TcpListener, tls: Option<TlsAcceptor>, outlet: Outlet, peers: Peers) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(source = %outlet.source, %error, "the TCP socket cannot be read"),
    };
    let mut connections = JoinSet::new();
    let mut door = Door { outlet, peers, tls, open: HashMap::new(), refused: 0, warned: None };
    loop {
        tokio::select! {
            () = door.outlet.stopped() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => door.admit(stream, from, &mut connections),
                Err(error) => {
                    tracing::warn!(source = %door.outlet.source, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // Connections that the kernel has accepted for us may have sent something.
    for _ in 0..MAX_CONNECTIONS {
        let Ok(Ok((stream, from))) = timeout(LAST_WAIT, listener.accept()).await else { break };
        door.admit(stream, from, &mut connections);
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Who gets in.
struct Door {
    outlet: Outlet,
    peers: Peers,
    tls: Option<TlsAcceptor>,
    /// One clone for each open connection of an address.
    open: HashMap<IpAddr, Arc<()>>,
    /// Connections refused since the last warning.
    refused: u64,
    warned: Option<Instant>,
}

impl Door {
    fn admit(&mut self, stream: TcpStream, from: SocketAddr, connections: &mut JoinSet<()>) {
        let peer = from.ip().to_canonical();
        self.open.retain(|_, seat| Arc::strong_count(seat) > 1);
        let room = if self.peers.knows(peer) { MAX_CONNECTIONS + RESERVED_FOR_DEVICES } else { MAX_CONNECTIONS };
        let of_peer = self.open.get(&peer).map_or(0, |seat| Arc::strong_count(seat) - 1);
        if connections.len() >= room || of_peer >= MAX_OF_ONE_ADDRESS {
            return self.refuse(peer, of_peer, connections.len());
        }
        let source = &self.outlet.source;
        // Without it a dead peer is only noticed after the idle time.
        let alive = rustix::net::sockopt::set_socket_keepalive(&stream, true).and_then(|()| rustix::net::sockopt::set_tcp_keepidle(&stream, KEEPALIVE));
        if let Err(error) = alive {
            tracing::debug!(%source, %peer, %error, "no keep-alive");
        }
        let name = format!("{source}/tcp/{}", SocketAddr::new(peer, from.port())).into();
        let seat = Arc::clone(self.open.entry(peer).or_default());
        let (outlet, peers) = (self.outlet.clone(), self.peers.clone());
        let connection = Connection { peer, name, outlet, peers, framer: Framer::default(), opened: Instant::now(), spoke: false, _seat: seat };
        match self.tls.clone() {
            Some(tls) => connections.spawn(connection.secure(stream, tls)),
            None => connections.spawn(connection.run(stream)),
        };
    }

    fn refuse(&mut self, peer: IpAddr, of_peer: usize, open: usize) {
        self.outlet.meter.refused.increment(1);
        self.refused += 1;
        if self.warned.is_some_and(|at| at.elapsed() < WARN_EVERY) {
            return;
        }
        let refused = std::mem::take(&mut self.refused);
        self.warned = Some(Instant::now());
        tracing::warn!(source = %self.outlet.source, refused, %peer, of_peer, open, "connections were refused: at most {MAX_OF_ONE_ADDRESS} of one address and {MAX_CONNECTIONS} in all; `peer` is the last of them");
    }
}

struct Connection {
    peer: IpAddr,
    name: Arc<str>,
    outlet: Outlet,
    peers: Peers,
    framer: Framer,
    opened: Instant,
    /// Whether a whole message has come.
    spoke: bool,
    _seat: Arc<()>,
}

impl Connection {
    /// Over TLS: what comes before the handshake is done is nobody's.
    async fn secure(self, stream: TcpStream, tls: TlsAcceptor) {
        let shaken = tokio::select! {
            () = self.outlet.stopped() => return,
            shaken = timeout_at(self.opened + FIRST_MESSAGE, tls.accept(stream)) => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => self.run(stream).await,
            Ok(Err(error)) => self.not_secured(&error.to_string()),
            Err(_) => self.not_secured("it took too long"),
        }
    }

    fn not_secured(&self, why: &str) {
        self.outlet.meter.unsecured.increment(1);
        tracing::info!(source = %self.outlet.source, peer = %self.peer, why, "a TLS handshake failed");
    }

    async fn run(mut self, mut stream: impl AsyncRead + Unpin) {
        self.outlet.meter.connections.increment(1.0);
        let ended = self.read(&mut stream).await;
        if let Ok(unfinished) = ended {
            let mut messages = Vec::new();
            self.framer.finish(unfinished, &mut messages);
            // Nobody takes it: then there is nothing more to do.
            let _ = self.hand_over(messages).await;
        }
        self.outlet.meter.connections.decrement(1.0);
    }

    /// Reads to the end; whether the sender had more to say.
    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<bool, Closed> {
        let mut buffer = vec![0; READ];
        loop {
            let read = tokio::select! {
                biased;
                () = self.outlet.stopped() => return self.read_last(stream, &mut buffer).await,
                read = timeout_at(self.patience(), stream.read(&mut buffer)) => read,
            };
            match read {
                Ok(Ok(0)) => return Ok(false),
                Ok(Ok(length)) => self.take(buffer.get(..length).unwrap_or_default()).await?,
                Ok(Err(_)) | Err(_) => return Ok(true),
            }
        }
    }

    /// When the connection is closed if nothing more comes.
    fn patience(&self) -> Instant {
        patience(self.opened, Instant::now(), self.spoke || self.peers.knows(self.peer))
    }

    /// What the kernel has already acknowledged to the sender is still taken.
    async fn read_last(&mut self, stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> Result<bool, Closed> {
        for _ in 0..LAST_READS {
            match timeout(LAST_WAIT, stream.read(buffer)).await {
                Ok(Ok(0)) => return Ok(false),
                Ok(Ok(length)) => self.take(buffer.get(..length).unwrap_or_default()).await?,
                Ok(Err(_)) | Err(_) => break,
            }
        }
        Ok(true)
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        let mut messages = Vec::new();
        self.framer.push(bytes, &mut messages);
        self.spoke |= !messages.is_empty();
        self.hand_over(messages).await
    }

    async fn hand_over(&mut self, messages: Vec<Vec<u8>>) -> Result<(), Closed> {
        self.outlet.meter.truncated.increment(self.framer.take_truncated());
        // Asked each time: an inventory that loses the device ends its trust.
        let trust = self.peers.of_connection(self.peer);
        let records = messages.into_iter().map(|raw| self.outlet.record(&self.name, None, Some(self.peer), trust, raw)).collect();
        self.outlet.send_all(records).await
    }
}

/// `proven`: it has brought a whole message, or is a managed device's.
fn patience(opened: Instant, now: Instant, proven: bool) -> Instant {
    if proven { now + IDLE } else { opened + FIRST_MESSAGE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_message_do_not_prolong_a_connection() {
        let opened = Instant::now();
        let later = opened + Duration::from_secs(59);
        assert_eq!(patience(opened, later, false), opened + Duration::from_secs(60));
        assert_eq!(patience(opened, later, true), later + Duration::from_secs(6 * 3600));
    }
}
