//! The addresses of the machine that opmas runs on, for the guard: blocking one of them would cut off opmas itself.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};

/// All addresses of this machine's network namespace, as Linux lists them under `/proc/net`; empty where it does not.
#[must_use]
pub fn addresses() -> Vec<IpAddr> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut found = v4(&read("/proc/net/fib_trie"));
    found.extend(v6(&read("/proc/net/if_inet6")));
    found.sort_unstable();
    found.dedup();
    found
}

/// In the routing trie each local address stands above a line `/32 host LOCAL`.
fn v4(trie: &str) -> Vec<IpAddr> {
    let mut above = None;
    let mut found = Vec::new();
    for line in trie.lines().map(str::trim) {
        match line.strip_prefix("|-- ") {
            Some(address) => above = address.parse::<IpAddr>().ok(),
            None if line == "/32 host LOCAL" => found.extend(above),
            None => {}
        }
    }
    found
}

/// Each line begins with the address in 32 hexadecimal digits.
fn v6(table: &str) -> Vec<IpAddr> {
    let digits = table.lines().filter_map(|line| line.split_whitespace().next()).filter(|word| word.len() == 32);
    digits.filter_map(|word| u128::from_str_radix(word, 16).ok()).map(|bits| Ipv6Addr::from_bits(bits).into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_its_loopback_addresses() {
        assert!(addresses().contains(&IpAddr::from([127, 0, 0, 1])), "{:?}", addresses());
    }

    #[test]
    fn broadcast_and_networks_are_no_addresses() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.168.1.0\n        /24 link UNICAST\n        |-- 192.168.1.2\n           /32 host LOCAL\n     |-- 192.168.1.255\n        /32 link BROADCAST\n";
        assert_eq!(v4(trie), [IpAddr::from([192, 168, 1, 2])]);
        assert_eq!(v6("00000000000000000000000000000001 01 80 10 80 lo\nnonsense\n"), [IpAddr::from(Ipv6Addr::LOCALHOST)]);
    }
}
