//! What a device says about its own addresses and ways out: parsers for what BusyBox `ip` and the shell's environment print.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::Command;

use super::check::{CommandResult, listed};

/// Most addresses, gateways or prefixes that are read; more is a device that needs a person's look.
pub const MAX_FACTS: usize = 4096;

/// What must not be cut off, as one device knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardFacts {
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Next hops of its routes, and the far ends of its point-to-point links.
    pub gateways: BTreeSet<IpAddr>,
    /// The prefixes on its links, for their broadcast addresses.
    pub prefixes: BTreeSet<IpNet>,
    /// Where the ssh session that asked came from: the management path.
    pub peers: BTreeSet<IpAddr>,
    /// The name and time servers that it uses, as far as it knows them by address.
    pub servers: BTreeSet<IpAddr>,
    /// Its neighbours by hardware address: which of them must not be cut off is known by their addresses.
    pub neighbours: BTreeMap<String, BTreeSet<IpAddr>>,
}

/// Why the guard does not know enough about a device.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FactsError {
    /// A command failed: which, and how it ended.
    #[error("{0}")]
    Command(String),
    /// A command printed nothing that can be read.
    #[error("`{0}` on the device named no address")]
    Nothing(&'static str),
    /// The device printed more than is read.
    #[error("the device has more than {MAX_FACTS} addresses or routes")]
    TooMany,
    /// The commands that were run are not those of [`GuardFacts::commands`].
    #[error("{0} answers for {COMMANDS} commands")]
    Answers(usize),
}

const ADDRESSES: &str = "ip addr";
const ROUTES: &str = "ip route";
const ROUTES6: &str = "ip -6 route";
const ENVIRONMENT: &str = "env";
/// Name servers are behind `nameserver`, time servers are words of a line of their own.
const SERVERS: &str = "cat /tmp/resolv.conf.d/resolv.conf.auto /etc/resolv.conf 2>/dev/null; uci -q get system.ntp.server; true";
const NEIGHBOURS: &str = "ip neigh";
const COMMANDS: usize = 6;

impl GuardFacts {
    /// What to run on the device, over the session that the management path is to be learned of.
    #[must_use]
    pub fn commands() -> Vec<Command> {
        let split = |line: &str| Command { argv: line.split(' ').map(str::to_owned).collect(), stdin: None };
        let servers = Command { argv: ["sh", "-c", SERVERS].map(str::to_owned).to_vec(), stdin: None };
        [ADDRESSES, ROUTES, ROUTES6, ENVIRONMENT].map(split).into_iter().chain([servers, split(NEIGHBOURS)]).collect()
    }

    /// Reads what those commands printed.
    ///
    /// # Errors
    /// A command failed (`ip -6 route` may: a device without IPv6; what servers and neighbours it has need not be known), or its output names no address.
    pub fn parse(results: &[CommandResult]) -> Result<GuardFacts, FactsError> {
        let [addresses, routes, routes6, environment, servers, neighbours] = results else { return Err(FactsError::Answers(results.len())) };
        let mut facts = GuardFacts::default();
        facts.read_addresses(&printed(addresses, ADDRESSES)?);
        if facts.addresses.is_empty() {
            return Err(FactsError::Nothing(ADDRESSES));
        }
        facts.read_routes(&printed(routes, ROUTES)?);
        if let Ok(routes6) = printed(routes6, ROUTES6) {
            facts.read_routes(&routes6);
        }
        let environment = printed(environment, ENVIRONMENT)?;
        let connection = environment.lines().find_map(|line| line.strip_prefix("SSH_CONNECTION="));
        if !facts.read_connection(connection.unwrap_or_default()) {
            return Err(FactsError::Nothing("SSH_CONNECTION"));
        }
        // Each word that is an address; one that forwards to others listens on its loopback, which nobody can block.
        let words = String::from_utf8_lossy(&servers.stdout);
        facts.servers.extend(words.split_whitespace().filter_map(address).filter(|ip| !ip.is_loopback()));
        facts.read_neighbours(&String::from_utf8_lossy(&neighbours.stdout));
        if [facts.addresses.len(), facts.gateways.len(), facts.prefixes.len(), facts.servers.len(), facts.neighbours.len()].iter().any(|n| *n > MAX_FACTS) {
            return Err(FactsError::TooMany);
        }
        Ok(facts)
    }

    /// `ip addr` or `ip -o addr`: `inet 192.168.1.1/24 brd 192.168.1.255 scope global br-lan`, `inet 10.0.0.1 peer 10.0.0.2/32 …`.
    pub fn read_addresses(&mut self, text: &str) {
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            // With `-o` the interface's number and name come first.
            let family = |word: Option<&&str>| matches!(word, Some(&"inet" | &"inet6"));
            let after = if family(words.first()) { words.get(1..) } else { words.get(3..).filter(|_| family(words.get(2))) };
            let Some([own, rest @ ..]) = after else { continue };
            self.addresses.extend(address(own));
            let peer = rest.first().filter(|word| **word == "peer").and_then(|_| rest.get(1));
            self.gateways.extend(peer.and_then(|peer| address(peer)));
            self.prefixes.extend(prefix(own));
        }
    }

    /// `ip route` or `ip -6 route`: `default via 198.51.100.1 dev eth1`, `192.168.1.0/24 dev br-lan scope link src 192.168.1.1`.
    pub fn read_routes(&mut self, text: &str) {
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            for (at, word) in words.iter().enumerate() {
                // iproute2 writes `via inet6 fe80::1` for an IPv4 route over an IPv6 gateway.
                let next = words.get(at + 1).filter(|next| !matches!(**next, "inet" | "inet6")).or_else(|| words.get(at + 2));
                match *word {
                    "via" => self.gateways.extend(next.and_then(|next| address(next))),
                    "src" => self.addresses.extend(next.and_then(|next| address(next))),
                    _ => {}
                }
            }
            // A route without a next hop is a link of its own, unless it goes nowhere (`blackhole …`: the first word is no prefix).
            let direct = words.contains(&"dev") && !words.contains(&"via");
            self.prefixes.extend(words.first().filter(|_| direct).and_then(|first| prefix(first)));
        }
    }

    /// `ip neigh`: `192.168.1.2 dev br-lan lladdr 5e:d8:19:05:cd:48 REACHABLE`.
    pub fn read_neighbours(&mut self, text: &str) {
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let mac = words.iter().position(|word| *word == "lladdr").and_then(|at| words.get(at + 1));
            if let (Some(ip), Some(mac)) = (words.first().and_then(|word| address(word)), mac) {
                self.neighbours.entry(mac.to_ascii_lowercase()).or_default().insert(ip);
            }
        }
    }

    /// `SSH_CONNECTION`: `<client address> <port> <own address> <port>`. False when it is not that.
    pub fn read_connection(&mut self, text: &str) -> bool {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [client, _, own, _] = words.as_slice() else { return false };
        let (Some(client), Some(own)) = (address(client), address(own)) else { return false };
        self.peers.insert(client);
        self.addresses.insert(own);
        true
    }
}

fn printed(result: &CommandResult, command: &'static str) -> Result<String, FactsError> {
    listed(result, command).map(|printed| String::from_utf8_lossy(printed).into_owned()).map_err(FactsError::Command)
}

/// An address without its prefix length and zone; an IPv4-mapped one is its IPv4.
fn address(word: &str) -> Option<IpAddr> {
    let bare = word.split(['/', '%']).next()?;
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

fn prefix(word: &str) -> Option<IpNet> {
    word.parse::<IpNet>().ok().map(|net| net.trunc())
}
