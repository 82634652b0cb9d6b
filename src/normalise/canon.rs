//! Addresses in their one form: IPv6 compressed and lower case, IPv4-mapped as IPv4, MACs lower case with colons.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

/// An IP address, also in brackets or with a zone (`fe80::1%br-lan`), which is no part of the address.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    let (address, zone) = bare.split_once('%').unwrap_or((bare, ""));
    let address: IpAddr = address.parse().ok()?;
    if !zone.is_empty() && address.is_ipv4() { None } else { Some(address.to_canonical()) }
}

/// The text of [`ip`].
pub(super) fn ip_text(text: &str) -> Option<Cow<'_, str>> {
    // That is its one form already.
    if text.parse::<Ipv4Addr>().is_ok() {
        return Some(text.into());
    }
    ip(text).map(|ip| ip.to_string().into())
}

/// An address as it is written, as `to_string` does; on the event path, for IPv4 without the buffer that padding needs.
pub(super) fn written(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.octets().map(|octet| octet.to_string()).join("."),
        IpAddr::V6(ip) => ip.to_string(),
    }
}

/// Address and port; the port is what follows the last colon (`192.0.2.9:22`, `[2001:db8::9]:22`, `2001:db8::9:22`).
pub(super) fn endpoint(text: &str) -> Option<(Cow<'_, str>, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    Some((ip_text(address)?, self::port(port)?))
}

/// A port in plain decimal digits.
pub(super) fn port(text: &str) -> Option<u16> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Six bytes in hexadecimal, separated by colons, dashes, or (in groups of four digits) dots, or not at all.
pub(super) fn mac(text: &str) -> Option<String> {
    let mut digits = text.chars().filter(|c| !matches!(c, ':' | '-' | '.'));
    let mut mac = String::with_capacity(17);
    for place in 0..12 {
        if place > 0 && place % 2 == 0 {
            mac.push(':');
        }
        mac.push(digits.next().filter(char::is_ascii_hexdigit)?.to_ascii_lowercase());
    }
    (digits.next().is_none() && [12, 14, 17].contains(&text.len())).then_some(mac)
}

/// The source address of the 14 bytes of an Ethernet header (destination, source, type) as netfilter prints them.
pub(super) fn ether_source(text: &str) -> Option<String> {
    if text.len() != 41 {
        return None;
    }
    mac(text.get(18..35)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x4_addresses_are_canonical() {
        let text = |address: &str| ip(address).map(|ip| ip.to_string());
        assert_eq!(text("::FFFF:192.0.2.9").as_deref(), Some("192.0.2.9"));
        assert_eq!(text("2001:0DB8:0000:0000:0000:0000:0000:0009").as_deref(), Some("2001:db8::9"));
        assert_eq!(text("fe80::1%br-lan").as_deref(), Some("fe80::1"));
        assert_eq!(text("192.0.2.9%eth0"), None);
        assert_eq!(text("192.0.2.009"), None);
    }

    #[test]
    fn x4_the_port_is_what_follows_the_last_colon() {
        let text = |endpoint: &str| super::endpoint(endpoint).map(|(ip, port)| (ip.to_string(), port));
        assert_eq!(text("[2001:db8::9]:4000"), Some(("2001:db8::9".into(), 4000)));
        assert_eq!(text("2001:db8::9:4000"), Some(("2001:db8::9".into(), 4000)));
        assert_eq!(text("192.0.2.9:65536"), None);
        assert_eq!(text("192.0.2.9"), None);
        assert_eq!(text("192.0.2.9:+2"), None);
    }

    #[test]
    fn x4_macs_are_lower_case_with_colons() {
        for text in ["AA:BB:CC:DD:EE:0F", "aa-bb-cc-dd-ee-0f", "aabb.ccdd.ee0f", "AABBCCDDEE0F"] {
            assert_eq!(mac(text).as_deref(), Some("aa:bb:cc:dd:ee:0f"), "{text}");
        }
        assert_eq!(mac("00:16:dc:xx:xx:xx"), None);
        assert_eq!(ether_source("00:11:22:33:44:55:AA:bb:cc:dd:ee:ff:08:00").as_deref(), Some("aa:bb:cc:dd:ee:ff"));
        assert_eq!(ether_source("00:11:22:33:44:55"), None);
    }
}
