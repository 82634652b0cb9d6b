//! Addresses that must never be blocked.

use std::net::IpAddr;

use opmas::action::{CommandResult, FactsError, Guard, GuardConfig, GuardFacts};
use opmas::diag;
use opmas::model::{Device, Inventory};
use proptest::prelude::*;
use serde_json::json;

use super::{all, map, shipped};

/// What BusyBox 1.35 printed on a router with br-lan, eth1 and a point-to-point address.
const ADDR: &str = "\
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue qlen 1000
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 127.0.0.1/8 scope host lo
       valid_lft forever preferred_lft forever
    inet6 ::1/128 scope host \n       valid_lft forever preferred_lft forever
2: br-lan: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue qlen 1000
    link/ether 5e:d8:19:05:cd:48 brd ff:ff:ff:ff:ff:ff
    inet 192.168.1.1/24 brd 192.168.1.255 scope global br-lan
       valid_lft forever preferred_lft forever
    inet6 fd00:1::1/64 scope global flags 02 \n       valid_lft forever preferred_lft forever
    inet6 fe80::5cd8:19ff:fe05:cd48/64 scope link tentative \n       valid_lft forever preferred_lft forever
4: eth1@eth1p: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue qlen 1000
    link/ether a2:37:38:29:46:88 brd ff:ff:ff:ff:ff:ff
    inet 198.51.100.2/24 brd 198.51.100.255 scope global eth1
       valid_lft forever preferred_lft forever
    inet 10.9.9.1 peer 10.9.9.2/32 scope global eth1
       valid_lft forever preferred_lft forever
";
/// The same router with `-o`.
const ADDR_O: &str = "\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
1: lo    inet6 ::1/128 scope host \\       valid_lft forever preferred_lft forever
2: br-lan    inet 192.168.1.1/24 brd 192.168.1.255 scope global br-lan\\       valid_lft forever preferred_lft forever
2: br-lan    inet6 fd00:1::1/64 scope global flags 02 \\       valid_lft forever preferred_lft forever
2: br-lan    inet6 fe80::5cd8:19ff:fe05:cd48/64 scope link tentative \\       valid_lft forever preferred_lft forever
4: eth1    inet 198.51.100.2/24 brd 198.51.100.255 scope global eth1\\       valid_lft forever preferred_lft forever
4: eth1    inet 10.9.9.1 peer 10.9.9.2/32 scope global eth1\\       valid_lft forever preferred_lft forever
";
const ROUTE: &str = "\
default via 198.51.100.1 dev eth1 \ndefault  metric 100 \n10.9.9.2 dev eth1 scope link  src 10.9.9.1 \nblackhole 10.66.0.0/16 \n\
192.168.1.0/24 dev br-lan scope link  src 192.168.1.1 \n198.51.100.0/24 dev eth1 scope link  src 198.51.100.2 \n";
/// iproute2's form, which images with `ip-full` print.
const ROUTE_FULL: &str = "\
default metric 100 \n\tnexthop via 192.168.1.254 dev br-lan weight 1 \n\tnexthop via 192.168.1.253 dev br-lan weight 1 \n\
10.68.0.0/16 via inet6 fe80::9 dev eth1 \n";
/// Name servers that were learned and the resolver on the router, then `uci get system.ntp.server`.
const SERVERS: &str = "# Interface wan\nnameserver 198.51.100.53\nsearch lan\nnameserver 127.0.0.1\n0.openwrt.pool.ntp.org 198.51.100.123\n";
/// What BusyBox and iproute2 print of neighbours.
const NEIGHBOURS: &str = "192.168.1.77 dev br-lan lladdr 5E:D8:19:05:CD:77 ref 1 used 0/0/0 probes 1 REACHABLE\n192.168.1.50 dev br-lan lladdr 5e:d8:19:05:cd:50 STALE\n\
fe80::77 dev br-lan lladdr 5e:d8:19:05:cd:78 router STALE\n192.168.1.51 dev br-lan  FAILED\n";
const ROUTE6: &str = "fd00:1::/64 dev br-lan  metric 256 \nfe80::/64 dev br-lan  metric 256 \ndefault via fe80::1 dev eth1  metric 1024 \nmulticast ff00::/8 dev br-lan  metric 256 \n";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn printed(text: &str) -> CommandResult {
    CommandResult { status: Some(0), stdout: text.into(), ..CommandResult::default() }
}

fn answers(addr: &str) -> Vec<CommandResult> {
    vec![
        printed(addr),
        printed(ROUTE),
        printed(ROUTE6),
        printed("PATH=/usr/sbin\nSSH_CONNECTION=192.168.1.77 40122 192.168.1.1 22\nHOME=/root\n"),
        printed(SERVERS),
        printed(NEIGHBOURS),
    ]
}

fn device(name: &str, host: &str) -> Device {
    toml::from_str(&format!("name = '{name}'\nhost = '{host}'")).unwrap()
}

fn guard() -> Guard {
    let config: GuardConfig = toml::from_str("protect = ['203.0.113.64/26', '2001:db8:5::/48', '::ffff:100.64.0.0/106']").unwrap();
    let devices = vec![device("gw", "192.168.1.1"), device("ap", "fe80::77%br-lan"), device("far", "far.example.org")];
    let mut guard = Guard::new(&config, &Inventory { devices }, [ip("::ffff:192.0.2.50")]);
    let far =
        GuardFacts { addresses: [ip("198.18.7.1")].into(), gateways: [ip("198.18.7.254")].into(), peers: [ip("198.18.9.9")].into(), ..GuardFacts::default() };
    guard.learn(&"far".into(), far);
    guard
}

#[test]
fn both_forms_of_ip_addr_read_the_same() {
    let facts = GuardFacts::parse(&answers(ADDR)).unwrap();
    assert_eq!(facts, GuardFacts::parse(&answers(ADDR_O)).unwrap());
    for own in ["127.0.0.1", "::1", "192.168.1.1", "fd00:1::1", "fe80::5cd8:19ff:fe05:cd48", "198.51.100.2", "10.9.9.1"] {
        assert!(facts.addresses.contains(&ip(own)), "{own}");
    }
    assert_eq!(facts.gateways, ["198.51.100.1", "10.9.9.2", "fe80::1"].map(ip).into());
    assert_eq!(facts.peers, [ip("192.168.1.77")].into());
    assert!(facts.prefixes.contains(&"192.168.1.0/24".parse().unwrap()) && !facts.prefixes.contains(&"10.66.0.0/16".parse().unwrap()));
}

#[test]
fn every_next_hop_of_the_full_ip_is_a_gateway() {
    let mut facts = GuardFacts::default();
    facts.read_routes(ROUTE_FULL);
    assert_eq!(facts.gateways, ["192.168.1.254", "192.168.1.253", "fe80::9"].map(ip).into());
}

#[test]
fn the_busybox_of_this_machine_is_understood() {
    let run = |arguments: &[&str]| String::from_utf8(std::process::Command::new("busybox").args(arguments).output().unwrap().stdout).unwrap();
    for arguments in [&["ip", "addr"][..], &["ip", "-o", "addr"]] {
        let mut facts = GuardFacts::default();
        facts.read_addresses(&run(arguments));
        assert!(facts.addresses.contains(&ip("127.0.0.1")), "{facts:?}");
    }
}

#[test]
fn zones_and_mapped_addresses_of_a_session_are_plain() {
    let mut facts = GuardFacts::default();
    assert!(facts.read_connection("fe80::aa%br-lan 50000 fe80::bb%br-lan 22"));
    assert!(facts.read_connection("::ffff:192.168.1.77 50000 ::ffff:192.168.1.1 22"));
    assert_eq!(facts.peers, ["fe80::aa", "192.168.1.77"].map(ip).into());
    for bad in ["", "192.168.1.77", "a 1 b 2", "192.168.1.77 1 192.168.1.1"] {
        assert!(!facts.read_connection(bad), "{bad}");
    }
}

#[test]
fn a_device_that_does_not_answer_leaves_the_guard_without_facts() {
    assert_eq!(GuardFacts::commands().len(), 6);
    let with = |at: usize, result: CommandResult| {
        let mut all = answers(ADDR);
        all[at] = result;
        GuardFacts::parse(&all)
    };
    assert_eq!(with(0, printed("")), Err(FactsError::Nothing("ip addr")));
    assert_eq!(with(3, printed("PATH=/bin\n")), Err(FactsError::Nothing("SSH_CONNECTION")));
    let failed = CommandResult { status: Some(127), stdout: Vec::new(), stderr: b"ash: ip: not found\n".to_vec(), cut: None };
    assert!(with(0, failed.clone()).unwrap_err().to_string() == "`ip addr` ended with 127 on the device and said: ash: ip: not found");
    assert!(with(1, CommandResult::default()).is_err());
    assert!(with(2, failed).is_ok(), "a device without IPv6");
    let many: String = (0..5000).map(|n| format!("    inet 10.{}.{}.1/24 scope global eth0\n", n / 256, n % 256)).collect();
    assert_eq!(with(0, printed(&many)), Err(FactsError::TooMany));
}

#[test]
fn what_must_not_be_blocked_is_refused_with_its_reason() {
    let (guard, here) = (guard(), GuardFacts::parse(&answers(ADDR)).unwrap());
    let refused = [
        ("0.0.0.0", "an unspecified address"),
        ("0.1.2.3", "an unspecified address"),
        ("::", "an unspecified address"),
        ("127.9.9.9", "a loopback address"),
        ("::1", "a loopback address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("224.0.0.251", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "the broadcast address"),
        ("192.168.1.255", "a network or broadcast address of 192.168.1.0/24"),
        ("198.51.100.0", "a network or broadcast address of 198.51.100.0/24"),
        ("fd00:1::", "a network or broadcast address of fd00:1::/64"),
        ("192.168.1.1", "the address of device gw"),
        ("::ffff:192.168.1.1", "the address of device gw"),
        ("fe80::77", "the address of device ap"),
        ("198.51.100.2", "an address of the device"),
        ("fe80::5cd8:19ff:fe05:cd48", "an address of the device"),
        ("198.51.100.1", "a gateway of the device"),
        ("10.9.9.2", "a gateway of the device"),
        ("fe80::1", "a gateway of the device"),
        ("198.51.100.53", "a name or time server of the device"),
        ("198.51.100.123", "a name or time server of the device"),
        ("192.168.1.77", "where the device is managed from"),
        ("192.0.2.50", "an address of opmas itself"),
        ("198.18.7.1", "an address of device far"),
        ("198.18.9.9", "where device far is managed from"),
        ("203.0.113.99", "protected by `203.0.113.64/26` under [guard]"),
        ("2001:db8:5:9::1", "protected by `2001:db8:5::/48` under [guard]"),
        ("100.64.3.4", "protected by `100.64.0.0/10` under [guard]"),
    ];
    for (address, why) in refused {
        let refusal = guard.check(ip(address), &here).expect_err(address);
        assert_eq!(refusal.why, format!("is {why}"), "{address}");
        assert!(refusal.to_string().contains("must not be blocked: it is "));
    }
    for (address, why) in [
        ("64:ff9b::c0a8:101", "carries 192.168.1.1, which is the address of device gw"),
        ("::192.168.1.1", "carries 192.168.1.1, which is the address of device gw"),
        ("2002:c0a8:101::5", "carries 192.168.1.1, which is the address of device gw"),
        ("64:ff9b::7f00:1", "carries 127.0.0.1, which is a loopback address"),
        ("fe80::99", "is a link-local address"),
        ("febf::99", "is a link-local address"),
    ] {
        assert_eq!(guard.check(ip(address), &here).expect_err(address).why, why, "{address}");
    }
    for address in ["203.0.113.9", "192.168.1.50", "64:ff9b::c0a8:132", "2002:c0a8:132::1", "2001:db8::9", "198.18.7.254", "169.254.3.4"] {
        assert_eq!(guard.check(ip(address), &here), Ok(()), "{address}");
    }
}

#[test]
fn a_network_is_refused_for_its_size_and_for_what_it_holds() {
    let (guard, here) = (guard(), GuardFacts::parse(&answers(ADDR)).unwrap());
    let catalogue = all();
    let action = catalogue.get("block_subnet").unwrap();
    let refused = |net: &str| guard.check_call(action, &action.params(&map(json!({"net": net}))).unwrap(), &here).map_err(|refusal| refusal.to_string());
    for (net, why) in [
        ("203.0.0.0/15", "is larger than a /16"),
        ("2001:db8::/31", "is larger than a /32"),
        ("127.0.0.0/24", "holds loopback addresses"),
        ("224.0.0.0/24", "holds multicast addresses"),
        ("fe80::/64", "holds link-local addresses"),
        ("ff02::/32", "holds multicast addresses"),
        ("::/64", "holds the unspecified address"),
        ("203.0.113.0/24", "overlaps `203.0.113.64/26`, which [guard] protects"),
        ("203.0.113.80/30", "overlaps `203.0.113.64/26`, which [guard] protects"),
        ("192.168.1.0/29", "holds 192.168.1.1, which is the address of device gw"),
        ("192.168.1.64/28", "holds 192.168.1.77, which is where the device is managed from"),
        ("192.168.1.248/29", "holds 192.168.1.255, which is a network or broadcast address of 192.168.1.0/24"),
        ("198.51.100.0/29", "holds 198.51.100.2, which is an address of the device"),
        ("198.51.100.53/32", "holds 198.51.100.53, which is a name or time server of the device"),
        ("192.0.2.0/24", "holds 192.0.2.50, which is an address of opmas itself"),
        ("198.18.0.0/16", "holds 198.18.7.1, which is an address of device far"),
        ("0.0.0.0/0", "is larger than a /16"),
        ("::/0", "is larger than a /32"),
        ("64:ff9b::/64", "carries 0.0.0.0/0, which is larger than a /16"),
        ("64:ff9b::c0a8:100/120", "carries 192.168.1.0/24, which holds 192.168.1.1, which is the address of device gw"),
        ("2002:c0a8:101:5::/64", "carries 192.168.1.1/32, which holds 192.168.1.1, which is the address of device gw"),
        ("fe80::99/128", "holds link-local addresses"),
    ] {
        let said = refused(net).expect_err(net);
        assert!(said.starts_with(&format!("{net} must not be blocked: it ")) && said.ends_with(why), "{net}: {said}");
    }
    for net in ["203.0.112.0/24", "192.168.1.32/28", "2001:db8:6::/48", "198.51.100.64/27"] {
        assert_eq!(refused(net), Ok(()), "{net}");
    }
}

#[test]
fn a_station_with_a_protected_address_is_not_cut_off() {
    let (guard, here, catalogue) = (guard(), GuardFacts::parse(&answers(ADDR)).unwrap(), all());
    let call = |action: &str, mac: &str| {
        let action = catalogue.get(action).unwrap();
        guard.check_call(action, &action.params(&map(json!({"mac": mac}))).unwrap(), &here).map_err(|refusal| refusal.to_string())
    };
    for action in ["ban_station", "deauth_station"] {
        let why = "5e:d8:19:05:cd:77 must not be blocked: it is the station with 192.168.1.77, which is where the device is managed from";
        assert_eq!(call(action, "5e:d8:19:05:cd:77"), Err(why.to_owned()));
        assert!(call(action, "5e-d8-19-05-cd-78").unwrap_err().ends_with("which is the address of device ap"));
        assert_eq!(call(action, "5e:d8:19:05:cd:50"), Ok(()));
    }
    assert_eq!(call("unban_station", "5e:d8:19:05:cd:77"), Ok(()));
}

#[test]
fn a_call_is_refused_by_its_guarded_address() {
    let (guard, here) = (guard(), GuardFacts::parse(&answers(ADDR)).unwrap());
    let catalogue = shipped();
    let action = catalogue.get("block_ip").unwrap();
    let call = |ip: &str| guard.check_call(action, &action.params(&map(json!({"ip": ip}))).unwrap(), &here);
    assert!(call("::ffff:198.51.100.1").is_err());
    assert!(call("203.0.113.9").is_ok());
}

#[test]
fn a_protected_prefix_that_is_none_has_its_place() {
    #[derive(Debug, serde::Deserialize)]
    struct Config {
        #[serde(rename = "guard")]
        _guard: GuardConfig,
    }
    let wrong = diag::from_toml::<Config>("opmas.toml", "[guard]\nprotect = ['10.0.0.0/8', '10.0.0.300']").unwrap_err();
    assert_eq!(wrong.to_string(), "opmas.toml:2:11: `10.0.0.300` is not an address or a prefix; write \"192.168.1.2\" or \"10.0.0.0/8\"");
    let wrong = diag::from_toml::<Config>("opmas.toml", "[guard]\nprotekt = []").unwrap_err();
    assert_eq!(wrong.to_string(), "opmas.toml:2:1: unknown key `protekt`; did you mean `protect`?");
}

proptest! {
    #[test]
    fn no_spelling_of_a_protected_address_passes(v4 in any::<u32>()) {
        let mut here = GuardFacts::default();
        here.addresses.insert(IpAddr::V4(v4.into()));
        let mapped = IpAddr::V6(std::net::Ipv4Addr::from(v4).to_ipv6_mapped());
        prop_assert!(Guard::default().check(IpAddr::V4(v4.into()), &here).is_err());
        prop_assert!(Guard::default().check(mapped, &here).is_err());
    }

    #[test]
    fn whatever_a_device_prints_is_read_without_harm(text in "(inet|inet6|via|src|dev|[0-9a-f:./%]{1,12}| |\n){0,40}") {
        let mut facts = GuardFacts::default();
        facts.read_addresses(&text);
        facts.read_routes(&text);
        facts.read_connection(&text);
        facts.read_neighbours(&text);
    }
}
