//! The sockets of a syslog source.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{BindError, Outlet, SyslogConfig, tcp, tls, udp};
use crate::model::Trust;

/// How much the kernel may hold of datagrams that were not fetched yet, in bytes.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// Bound, not yet read from.
#[derive(Debug)]
pub(super) struct Sockets {
    udp: Option<UdpSocket>,
    tcp: Option<TcpListener>,
    tls: Option<Arc<ServerConfig>>,
    trusted: bool,
    /// Clients have shown a certificate.
    known: bool,
}

/// Who is believed.
#[derive(Clone)]
pub(super) struct Peers {
    trusted: bool,
    known: bool,
    inventory: watch::Receiver<Arc<HashSet<IpAddr>>>,
}

impl Peers {
    /// Whether this is a managed device's address.
    pub(super) fn knows(&self, peer: IpAddr) -> bool {
        self.inventory.borrow().contains(&peer)
    }

    /// What datagrams are worth: their sender's address can be anyone's.
    pub(super) fn of_datagram(&self) -> Trust {
        if self.trusted { Trust::Verified } else { Trust::Open }
    }

    /// What a connection is worth: its address is real, and over TLS its certificate was checked where one is asked for.
    pub(super) fn of_connection(&self, peer: IpAddr) -> Trust {
        if self.trusted || self.known || self.knows(peer) { Trust::Verified } else { Trust::Open }
    }
}

pub(super) fn bind(name: &str, config: &SyslogConfig) -> Result<Sockets, BindError> {
    let wrong = |protocol| move |error| BindError::Listen { source_name: name.to_owned(), protocol, address: config.listen, error };
    let udp = if config.udp { Some(bind_udp(config.listen).map_err(wrong("udp"))?) } else { None };
    let tcp = if config.tcp { Some(bind_tcp(config.listen).map_err(wrong("tcp"))?) } else { None };
    let tls = config.tls.as_ref().map(tls::config).transpose();
    let tls = tls.map_err(|reason| BindError::Tls { source_name: name.to_owned(), reason })?;
    let known = config.tls.as_ref().is_some_and(|tls| tls.ca_file.is_some());
    Ok(Sockets { udp, tcp, tls, trusted: config.trusted, known })
}

fn bind_udp(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    // Root may go beyond the system's limit; anyone else gets as much of it as there is.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
    }
    Ok(socket)
}

fn bind_tcp(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Sockets {
    pub(super) fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let udp = self.udp.as_ref().and_then(|socket| socket.local_addr().ok());
        (udp, self.tcp.as_ref().and_then(|listener| listener.local_addr().ok()))
    }

    pub(super) async fn run(self, outlet: Outlet, inventory: watch::Receiver<Arc<HashSet<IpAddr>>>) {
        let peers = Peers { trusted: self.trusted, known: false, inventory };
        let udp = async {
            if let Some(socket) = self.udp {
                udp::run(socket, outlet.clone(), peers.clone()).await;
            }
        };
        let tcp = async {
            if let Some(listener) = self.tcp {
                tcp::run(listener, self.tls.map(TlsAcceptor::from), outlet.clone(), Peers { known: self.known, ..peers.clone() }).await;
            }
        };
        tokio::join!(udp, tcp);
    }
}
