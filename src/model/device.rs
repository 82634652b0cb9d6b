//! Managed devices, as `devices.toml` names them.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Which family of commands a device understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Platform {
    /// OpenWrt with firewall4 (nftables).
    #[default]
    OpenwrtFw4,
    /// Any Linux with nftables.
    Linux,
    /// OpenWrt with firewall3 (iptables and ipset): up to 21.02.
    OpenwrtFw3,
}

impl Platform {
    /// As files write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Platform::OpenwrtFw4 => "openwrt-fw4",
            Platform::Linux => "linux",
            Platform::OpenwrtFw3 => "openwrt-fw3",
        }
    }
}

/// One managed device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its name in findings, playbooks and on the command line; `[a-z0-9._-]`, at most 64.
    pub name: Arc<str>,
    /// Address or host name that ssh connects to.
    pub host: String,
    /// ssh port.
    #[serde(default = "ssh_port")]
    pub port: u16,
    /// ssh user.
    #[serde(default = "root")]
    pub user: String,
    /// Which commands it understands.
    #[serde(default)]
    pub platform: Platform,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<Arc<str>>,
    /// Free words to choose devices by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Arc<str>>,
    /// The key of opmas runs the helper there and nothing else (`opmas device enroll`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enrolled: bool,
}

impl Device {
    /// A device of which nothing else is said: what a table of `devices.toml` with these two keys is.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, host: impl Into<String>) -> Device {
        let (name, host) = (name.into(), host.into());
        Device { name, host, port: ssh_port(), user: root(), platform: Platform::default(), site: None, tags: Vec::new(), enrolled: false }
    }
}

fn ssh_port() -> u16 {
    22
}

fn root() -> String {
    "root".to_owned()
}

/// All managed devices: `devices.toml`, a list of `[[device]]` tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// In the order of the file.
    #[serde(default, rename = "device")]
    pub devices: Vec<Device>,
}

impl Inventory {
    /// The device with this inventory name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Device> {
        self.devices.iter().find(|d| &*d.name == name)
    }

    /// The device that a log line is about: the one whose name is the line's host (case ignored), else the one whose
    /// `host` is that text, else the one whose `host` is the sender's address.
    #[must_use]
    pub fn by_host_or_peer(&self, host: Option<&str>, peer: Option<IpAddr>) -> Option<&Device> {
        let by_text = |text: &str| self.devices.iter().find(|d| d.name.eq_ignore_ascii_case(text) || d.host.eq_ignore_ascii_case(text));
        host.and_then(by_text).or_else(|| {
            let peer = peer?.to_canonical();
            self.devices.iter().find(|d| d.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == peer))
        })
    }
}
