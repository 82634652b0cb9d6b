//! Syslog over UDP: one message a datagram.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::framing::strip_trailer;
use super::syslog::Peers;
use super::{Closed, LAST_WAIT, MAX_BATCH, Outlet};
use crate::clock;
use crate::model::{Record, Span, Time};

/// The largest datagram there is.
const MAX_DATAGRAM: usize = 65_536;
/// Senders that have a stream of their own; those beyond share one, so that forged addresses cannot make streams without end.
const MAX_STREAMS: usize = 4096;
/// A sender that was silent for so long gives its stream away when there is no room.
const FORGOTTEN: Span = Span::secs(600);
/// How often the kernel is asked how much it dropped.
const DROPS_EVERY: Duration = Duration::from_secs(10);
/// Batches that are still fetched when the source stops.
const LAST_BATCHES: usize = 16;

/// The streams of the senders.
struct Streams {
    source: Arc<str>,
    known: HashMap<IpAddr, (Arc<str>, Time)>,
    others: Arc<str>,
    looked: Time,
}

impl Streams {
    fn new(source: &Arc<str>) -> Streams {
        Streams { source: Arc::clone(source), known: HashMap::new(), others: format!("{source}/udp/others").into(), looked: Time::MIN }
    }

    /// The sender's stream; `None` when there is no room for one. A managed device always has its own.
    fn of(&mut self, peer: IpAddr, managed: bool, now: Time) -> Option<Arc<str>> {
        if let Some((stream, last)) = self.known.get_mut(&peer) {
            *last = now;
            return Some(Arc::clone(stream));
        }
        if self.known.len() >= MAX_STREAMS {
            self.forget(now);
            if self.known.len() >= MAX_STREAMS && !managed {
                return None;
            }
        }
        let stream: Arc<str> = format!("{}/udp/{peer}", self.source).into();
        self.known.insert(peer, (Arc::clone(&stream), now));
        Some(stream)
    }

    /// At most every tenth of the time that it takes to be forgotten: a flood must not make us look all the time.
    fn forget(&mut self, now: Time) {
        if now.since(self.looked) > Span(FORGOTTEN.0 / 10) {
            self.looked = now;
            self.known.retain(|_, (_, last)| now.since(*last) < FORGOTTEN);
        }
    }
}

struct Receiver {
    socket: UdpSocket,
    outlet: Outlet,
    peers: Peers,
    streams: Streams,
    buffer: Vec<u8>,
}

/// Reads until it is stopped.
pub(super) async fn run(socket: std::net::UdpSocket, outlet: Outlet, peers: Peers) {
    let inode = rustix::fs::fstat(socket.as_fd()).map(|stat| stat.st_ino).ok();
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(source = %outlet.source, %error, "the UDP socket cannot be read"),
    };
    let streams = Streams::new(&outlet.source);
    let mut receiver = Receiver { socket, streams, buffer: vec![0; MAX_DATAGRAM], peers, outlet };
    if receiver.receive(inode).await.is_err() {
        return;
    }
    // What has reached the kernel is not lost.
    for _ in 0..LAST_BATCHES {
        let at_hand = tokio::time::timeout(LAST_WAIT, receiver.socket.readable()).await;
        let records = receiver.fetch();
        if at_hand.is_err() || receiver.outlet.send(records, None).await.is_err() {
            break;
        }
    }
}

impl Receiver {
    /// Until it is to stop.
    async fn receive(&mut self, inode: Option<u64>) -> Result<(), Closed> {
        let mut drops_every = tokio::time::interval(DROPS_EVERY);
        loop {
            tokio::select! {
                biased;
                () = self.outlet.stopped() => return Ok(()),
                _ = drops_every.tick() => count_drops(inode, &self.outlet).await,
                ready = self.socket.readable() => {
                    if ready.is_err() {
                        return Ok(());
                    }
                    let records = self.fetch();
                    self.outlet.send(records, None).await?;
                }
            }
        }
    }

    /// All datagrams that are at hand, up to a batch.
    fn fetch(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        while records.len() < MAX_BATCH {
            let Some((length, from)) = self.next() else { break };
            let mut raw = self.buffer.get(..length).unwrap_or_default().to_vec();
            strip_trailer(&mut raw);
            if raw.is_empty() {
                continue;
            }
            let peer = from.to_canonical();
            let stream = self.streams.of(peer, self.peers.knows(peer), clock::now()).unwrap_or_else(|| {
                self.outlet.meter.crowded.increment(1);
                Arc::clone(&self.streams.others)
            });
            records.push(self.outlet.record(&stream, None, Some(peer), self.peers.of_datagram(), raw));
        }
        records
    }

    fn next(&mut self) -> Option<(usize, IpAddr)> {
        loop {
            match self.socket.try_recv_from(&mut self.buffer) {
                Ok((length, from)) => return Some((length, from.ip())),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                // An ICMP error for something else of this port, say: the next datagram is not concerned.
                Err(error) => tracing::debug!(source = %self.outlet.source, %error, "a datagram could not be read"),
            }
        }
    }
}

/// Counts what the kernel dropped, as far as it tells (`/proc/net/udp`).
async fn count_drops(inode: Option<u64>, outlet: &Outlet) {
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        let text = tokio::fs::read_to_string(table).await.unwrap_or_default();
        if let Some(drops) = inode.and_then(|inode| drops(&text, inode)) {
            outlet.meter.dropped.absolute(drops);
        }
    }
}

/// The last column of the socket's line; the tenth is its inode.
fn drops(table: &str, inode: u64) -> Option<u64> {
    let inode = inode.to_string();
    let line = table.lines().find(|line| line.split_ascii_whitespace().nth(9) == Some(&inode))?;
    line.split_ascii_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_the_drops_of_a_socket() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
        assert_eq!(drops(&std::fs::read_to_string("/proc/net/udp").unwrap(), inode), Some(0));
        assert_eq!(drops("", inode), None);
    }

    #[test]
    fn forged_senders_share_one_stream_and_a_device_has_its_own() {
        let mut streams = Streams::new(&"lan".into());
        let peer = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        let bound = u32::try_from(MAX_STREAMS).unwrap();
        for n in 0..bound {
            assert!(streams.of(peer(n), false, Time(0)).is_some());
        }
        assert_eq!(streams.of(peer(bound), false, Time(1)), None);
        assert_eq!(streams.of(peer(bound + 1), true, Time(1)).as_deref(), Some("lan/udp/0.0.16.1"));
        let later = Time(0).plus(FORGOTTEN).plus(Span::secs(1));
        assert!(streams.of(peer(bound), false, later).is_some(), "those that fell silent made room");
    }
}
