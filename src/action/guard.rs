//! The addresses that must never be blocked, whoever asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::catalogue::Action;
use super::facts::GuardFacts;
use super::params::Params;
use super::value::{Grammar, ParamValue};
use crate::model::Inventory;

/// `[guard]` of the configuration.
///
/// ```toml
/// [guard]
/// protect = ["10.0.0.0/8", "192.168.1.2"]
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// Addresses and prefixes that no action may touch; none by default.
    pub protect: Vec<Protected>,
}

/// One protected address or prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Protected(IpNet);

impl Protected {
    /// Reads an address or a prefix; host bits of a prefix do not matter, an IPv4-mapped one is its IPv4.
    ///
    /// # Errors
    /// One sentence.
    pub fn parse(text: &str) -> Result<Protected, String> {
        let bad = || format!("`{text}` is not an address or a prefix; write \"192.168.1.2\" or \"10.0.0.0/8\"");
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| bad())?;
        let mapped = match net {
            IpNet::V6(v6) if v6.prefix_len() >= 96 => v6.addr().to_ipv4_mapped().map(|v4| (v4, v6.prefix_len() - 96)),
            _ => None,
        };
        let net = match mapped {
            Some((v4, length)) => IpNet::new(v4.into(), length).map_err(|_| bad())?,
            None => net,
        };
        Ok(Protected(net.trunc()))
    }
}

impl<'de> Deserialize<'de> for Protected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Protected::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Protected {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The shortest IPv4 prefix that may be blocked: more is no attacker but a part of the internet.
const SHORTEST_V4: u8 = 16;
/// The shortest IPv6 prefix that may be blocked: what a provider gets.
const SHORTEST_V6: u8 = 32;

/// Why an address, a network or a station may not be blocked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must not be blocked: it {why}")]
pub struct GuardRefusal {
    /// The address, the network, or the station's hardware address.
    pub what: String,
    /// What it is, or holds.
    pub why: String,
}

/// What must never be blocked anywhere: the configuration, the inventory, and what devices have said of themselves.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    protect: Vec<Protected>,
    /// Inventory devices whose `host` is an address.
    hosts: BTreeMap<IpAddr, Arc<str>>,
    /// Addresses that this controller uses.
    controllers: BTreeSet<IpAddr>,
    /// What each device last said.
    devices: BTreeMap<Arc<str>, GuardFacts>,
}

impl Guard {
    /// A guard that knows the configuration, the inventory and the controller's own addresses.
    #[must_use]
    pub fn new(config: &GuardConfig, inventory: &Inventory, controllers: impl IntoIterator<Item = IpAddr>) -> Guard {
        let host = |device: &crate::model::Device| Some((bare(&device.host)?, device.name.clone()));
        Guard {
            protect: config.protect.clone(),
            hosts: inventory.devices.iter().filter_map(host).collect(),
            controllers: controllers.into_iter().map(|ip| ip.to_canonical()).collect(),
            devices: BTreeMap::new(),
        }
    }

    /// Keeps what a device has said, in place of what it said before.
    pub fn learn(&mut self, device: &Arc<str>, facts: GuardFacts) {
        self.devices.insert(device.clone(), facts);
    }

    /// What a device has said, if it has.
    #[must_use]
    pub fn facts(&self, device: &str) -> Option<&GuardFacts> {
        self.devices.get(device)
    }

    /// Whether every guarded address of a call may be blocked on a device that said `here` about itself.
    ///
    /// # Errors
    /// One of them may not, and why.
    pub fn check_call(&self, action: &Action, params: &Params, here: &GuardFacts) -> Result<(), GuardRefusal> {
        let guarded = action.params.iter().filter(|param| param.guarded).filter_map(|param| params.get(&param.name));
        for value in guarded {
            match value {
                ParamValue::Ip(ip) => self.check(*ip, here)?,
                ParamValue::Prefix(net) => self.check_network(net, here)?,
                // Of the words only hardware addresses are guarded.
                ParamValue::Word(mac) => self.check_station(mac, here)?,
                ParamValue::Duration(_) | ParamValue::Int(_) => {}
            }
        }
        Ok(())
    }

    /// Whether what another program is to act on, an address, a network or a station, may be acted on.
    ///
    /// # Errors
    /// It is none of them, or may not, and why.
    pub fn check_value(&self, value: &Value) -> Result<(), String> {
        let here = &GuardFacts::default();
        let read = [Grammar::Ip, Grammar::Prefix, Grammar::Mac].iter().find_map(|grammar| grammar.parse(value).ok());
        let checked = match read.ok_or("it is no address, network or station")? {
            ParamValue::Ip(ip) => self.check(ip, here),
            ParamValue::Prefix(net) => self.check_network(&net, here),
            ParamValue::Word(mac) => self.check_station(&mac, here),
            ParamValue::Duration(_) | ParamValue::Int(_) => Ok(()),
        };
        checked.map_err(|refusal| refusal.to_string())
    }

    /// Whether an address may be blocked on a device that said `here` about itself.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn check(&self, ip: IpAddr, here: &GuardFacts) -> Result<(), GuardRefusal> {
        self.protected(ip, here)?;
        let refused = |why: String| Err(GuardRefusal { what: ip.to_string(), why });
        match embedded(&IpNet::from(ip)).map(|v4| self.protected(v4.addr(), here)) {
            Some(Err(inside)) => refused(format!("carries {}, which {}", inside.what, inside.why)),
            _ if LINK_LOCAL.contains(&ip) => refused("is a link-local address".to_owned()),
            _ => Ok(()),
        }
    }

    /// Whether an address as it is written is protected.
    fn protected(&self, ip: IpAddr, here: &GuardFacts) -> Result<(), GuardRefusal> {
        let ip = ip.to_canonical();
        let refusal = always(ip).map(str::to_owned).or_else(|| self.known(ip)).or_else(|| on_device(ip, here));
        refusal.map_or(Ok(()), |why| Err(GuardRefusal { what: ip.to_string(), why: format!("is {why}") }))
    }

    /// Whether a network may be blocked on a device that said `here` about itself: it is not too large, and nothing in it is protected.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn check_network(&self, net: &IpNet, here: &GuardFacts) -> Result<(), GuardRefusal> {
        let refused = |why: String| Err(GuardRefusal { what: net.to_string(), why });
        let shortest = if net.addr().is_ipv4() { SHORTEST_V4 } else { SHORTEST_V6 };
        if net.prefix_len() < shortest {
            return refused(format!("is larger than a /{shortest}"));
        }
        let overlaps = |other: &IpNet| net.contains(other) || other.contains(net);
        if let Some((_, why)) = NEVER.iter().find(|(never, _)| overlaps(never)) {
            return refused(format!("holds {why}"));
        }
        if let Some(protected) = self.protect.iter().find(|protected| overlaps(&protected.0)) {
            return refused(format!("overlaps `{}`, which [guard] protects", protected.0));
        }
        let of_devices = self.devices.values().flat_map(|facts| facts.addresses.iter().chain(&facts.peers));
        let of_device = here.addresses.iter().chain(&here.peers).chain(&here.gateways).chain(&here.servers);
        let edges: Vec<IpAddr> =
            here.prefixes.iter().flat_map(|net| [net.network(), net.broadcast()].into_iter().filter(move |ip| is_edge(*ip, net))).collect();
        let mut protected = self.hosts.keys().chain(&self.controllers).chain(of_devices).chain(of_device).chain(&edges);
        if let Some(Err(inside)) = protected.find(|ip| net.contains(*ip)).map(|ip| self.protected(*ip, here)) {
            return refused(format!("holds {}, which {}", inside.what, inside.why));
        }
        let carried = embedded(net).map_or(Ok(()), |v4| self.check_network(&v4, here));
        carried.or_else(|inside| refused(format!("carries {}, which {}", inside.what, inside.why)))
    }

    /// Whether a station may be cut off: none of the addresses that the device knows it by is protected.
    fn check_station(&self, mac: &str, here: &GuardFacts) -> Result<(), GuardRefusal> {
        let addresses = here.neighbours.get(mac).into_iter().flatten();
        match addresses.map(|ip| self.protected(*ip, here)).find(Result::is_err) {
            Some(Err(of)) => Err(GuardRefusal { what: mac.to_owned(), why: format!("is the station with {}, which {}", of.what, of.why) }),
            _ => Ok(()),
        }
    }

    /// What is protected on every device.
    fn known(&self, ip: IpAddr) -> Option<String> {
        if let Some(protected) = self.protect.iter().find(|p| p.0.contains(&ip)) {
            return Some(format!("protected by `{}` under [guard]", protected.0));
        }
        if let Some(device) = self.hosts.get(&ip) {
            return Some(format!("the address of device {device}"));
        }
        if self.controllers.contains(&ip) {
            return Some("an address of opmas itself".to_owned());
        }
        let own = self.devices.iter().find(|(_, facts)| facts.addresses.contains(&ip));
        let peer = || self.devices.iter().find(|(_, facts)| facts.peers.contains(&ip));
        own.map(|(device, _)| format!("an address of device {device}")).or_else(|| peer().map(|(device, _)| format!("where device {device} is managed from")))
    }
}

/// What is protected on this device.
fn on_device(ip: IpAddr, here: &GuardFacts) -> Option<String> {
    if here.addresses.contains(&ip) {
        return Some("an address of the device".to_owned());
    }
    if here.peers.contains(&ip) {
        return Some("where the device is managed from".to_owned());
    }
    if here.gateways.contains(&ip) {
        return Some("a gateway of the device".to_owned());
    }
    if here.servers.contains(&ip) {
        return Some("a name or time server of the device".to_owned());
    }
    here.prefixes.iter().find(|net| is_edge(ip, net)).map(|net| format!("a network or broadcast address of {net}"))
}

/// The first and last address of an IPv4 prefix (RFC 919; a /31 or /32 has none, RFC 3021); the first of an IPv6 prefix, which every
/// router on the link answers to (RFC 4291 2.6.1).
fn is_edge(ip: IpAddr, net: &IpNet) -> bool {
    match net {
        IpNet::V4(v4) => v4.prefix_len() < 31 && (ip == IpAddr::V4(v4.network()) || ip == IpAddr::V4(v4.broadcast())),
        IpNet::V6(v6) => v6.prefix_len() < 127 && ip == IpAddr::V6(v6.network()),
    }
}

/// What neighbours of IPv6 speak by.
const LINK_LOCAL: IpNet = v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10);

/// Prefixes whose addresses carry an IPv4 address behind their own bits: IPv4-compatible (RFC 4291 2.5.5.1), NAT64 (RFC 6052), 6to4 (RFC 3056).
const CARRIERS: [IpNet; 3] = [v6([0; 8], 96), v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16)];

/// The IPv4 network that the addresses of an IPv6 one carry, all of IPv4 when it holds a whole carrier.
fn embedded(net: &IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = net else { return None };
    let carrier = CARRIERS.iter().find(|carrier| carrier.contains(net) || net.contains(*carrier))?;
    let own = u32::from(carrier.prefix_len());
    let address = u32::try_from(u128::from(v6.network()) >> (96 - own) & u128::from(u32::MAX)).ok()?;
    let length = net.prefix_len().saturating_sub(carrier.prefix_len()).min(32);
    Ipv4Net::new(address.into(), length).ok().map(|v4| IpNet::V4(v4.trunc()))
}

/// [`always`], as networks, and what neighbours of IPv6 speak by.
const NEVER: [(IpNet, &str); 8] = [
    (v4([0, 0, 0, 0], 8), "unspecified addresses"),
    (v4([127, 0, 0, 0], 8), "loopback addresses"),
    (v4([224, 0, 0, 0], 4), "multicast addresses"),
    (v4([255, 255, 255, 255], 32), "the broadcast address"),
    (v6([0; 8], 128), "the unspecified address"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "the loopback address"),
    (LINK_LOCAL, "link-local addresses"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast addresses"),
];

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length))
}

/// What no network should ever drop by address.
fn always(ip: IpAddr) -> Option<&'static str> {
    let this_network = matches!(ip, IpAddr::V4(v4) if v4.octets().first() == Some(&0));
    if ip.is_unspecified() || this_network {
        Some("an unspecified address")
    } else if ip.is_loopback() {
        Some("a loopback address")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else if matches!(ip, IpAddr::V4(v4) if v4.is_broadcast()) {
        Some("the broadcast address")
    } else {
        None
    }
}

/// The address that an inventory host is, also as `[fe80::1%eth0]`.
fn bare(host: &str) -> Option<IpAddr> {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    inner.split('%').next()?.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}
