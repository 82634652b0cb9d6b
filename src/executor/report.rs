//! What a check finds out about a device.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::enroll;
use super::paths::Paths;
use super::protocol::Report;
use super::remote::Bounds;
use crate::action::{Batch, Catalogue, GuardFacts, HELPER};
use crate::clock;
use crate::http::visible;
use crate::model::{Command, Device, Platform, Time};

/// Shell functions that change files of a device without losing a line of them. Variables of theirs: `line`, and `first` where nothing
/// of ours was there before.
pub(super) const LINES: &str = include_str!("lines.sh");
/// How a device begins to say what kept it from changing its files.
pub const NOT_DONE: &str = "opmas: not done: ";

/// Reading takes milliseconds; a router under load may need longer.
pub(super) const BOUNDS: Bounds = Bounds { time: Duration::from_secs(8), output: 256 << 10 };
/// A clock that is further off makes time stamps of logs useless.
const CLOCK_OFF_S: i64 = 60;

/// What a check wants to know beyond what the guard does. The release files have other names on other systems, so none needs to be there.
const PLATFORM: &str = r#"date -u '+clock %s'; { uname -sr; nft --version; busybox | head -n 1; dropbear -V; } 2>&1 | sed 's/^/version /'; nft list tables 2>&1 | sed 's/^/nft /'; for p in fw3 iptables-restore ip6tables-restore ipset; do command -v $p; done | sed 's/^/has /'; ipset list -n 2>&1 >/dev/null | sed 's/^/ipset /'; cat /etc/openwrt_release /etc/os-release 2>/dev/null | sed 's/^/release /'"#;

/// Takes the table of ours away.
const LEAVE_NFT: &str = r#"nft delete table inet opmas 2>/dev/null
! nft list table inet opmas >/dev/null 2>&1 || no "table inet opmas cannot be deleted"
"#;
/// Takes the chains and sets of ours away.
const LEAVE_FW3: &str = r#"for t in iptables ip6tables; do
  rules=$($t -w -t mangle -S | grep opmas_) || continue
  { echo '*mangle'
    echo "$rules" | sed -n -e 's/^-A \(INPUT\|FORWARD\) -j opmas_/-D \1 -j opmas_/p'
    echo "$rules" | sed -n -e 's/^-N /-F /p'
    echo "$rules" | sed -n -e 's/^-N /-X /p'
    echo COMMIT; } | $t-restore -w --noflush || no "the chains of opmas in table mangle cannot be deleted"
done
for s in $(ipset list -n 2>/dev/null); do
  case $s in opmas_*) ipset destroy "$s" || no "ipset $s cannot be deleted" ;; esac
done
"#;

pub(super) fn check() -> Batch {
    Batch::fixed("check", vec![Command { argv: ["sh", "-c", PLATFORM].map(str::to_owned).to_vec(), stdin: None }])
}

/// What the guard must know.
pub(super) fn facts() -> Batch {
    Batch::fixed("facts", GuardFacts::commands())
}

/// Which catalogue an enrolled device's helper holds.
pub(super) fn revision() -> Batch {
    Batch { name: "opmas - revision".to_owned(), values: String::new(), commands: vec![Command { argv: vec![HELPER.to_owned()], stdin: None }] }
}

/// Takes everything of ours away: the table or the chains and sets, the lines with our key, the helper, which stays until the key is gone so that it can be
/// tried again. Ends well when all of it is gone; where it says no, the device's files have every line that they had.
pub(super) fn leave(paths: &Paths, device: &Device) -> Batch {
    let public = |key: PathBuf| fs::read_to_string(key.with_extension("pub")).unwrap_or_default();
    let blob = |line: String| line.split_whitespace().nth(1).filter(|blob| STANDARD.decode(blob).is_ok_and(|key| key.len() >= 32)).map(str::to_owned);
    let blobs: Vec<String> = enroll::identities(paths, device).into_iter().map(public).filter_map(blob).collect();
    let ours = if blobs.is_empty() { "no key of opmas".to_owned() } else { blobs.join("' -e '") };
    let tables = if device.platform == Platform::OpenwrtFw3 { LEAVE_FW3 } else { LEAVE_NFT };
    let script = format!(
        r#"{LINES}out() {{
  [ -e "$1" ] || return 0
  f=$1; shift
  grep -q "$@" "$f"; s=$?
  [ $s != 0 ] || {{ anew "$f" "$@"; grep -q "$@" "$f"; s=$?; }}
  [ $s = 1 ] || no "$f cannot be read, or has our line still"
}}
first= line=
{tables}out /etc/sysupgrade.conf -xF /etc/opmas/
for keys in /etc/dropbear/authorized_keys "$HOME/.ssh/authorized_keys"; do out "$keys" -F -e '{ours}'; done
why=$(rm -rf /etc/opmas 2>&1) || no "the key of opmas is gone, but /etc/opmas cannot be removed: $why""#
    );
    Batch::fixed("leave", vec![Command { argv: vec!["sh".to_owned(), "-c".to_owned(), script], stdin: None }])
}

/// The helper of a catalogue, and its revision.
pub(super) fn helper(catalogue: &Catalogue, paths: &Paths, device: &Device) -> (String, String) {
    catalogue.helper(device.platform, &[facts(), check(), leave(paths, device)])
}

/// The report of a check, from the facts and what [`command`] printed.
pub(super) fn report(platform: Platform, facts: &GuardFacts, printed: &str, connect: Duration) -> Report {
    let of = |word: &str| printed.lines().filter_map(move |line| line.strip_prefix(word)?.strip_prefix(' ')).collect::<Vec<_>>();
    let tables = of("nft");
    let (has, ipset_said) = (of("has"), of("ipset"));
    let there = |program: &str| has.iter().any(|path| path.rsplit('/').next() == Some(program));
    let seconds: Option<i64> = of("clock").first().and_then(|text| text.trim().parse().ok());
    let mut report = Report {
        system: system(&of("release")),
        versions: of("version").iter().take(8).map(|line| visible(line, 80)).collect(),
        nft: tables.iter().all(|line| line.starts_with("table ")),
        fw4: tables.contains(&"table inet fw4"),
        fw3: there("fw3"),
        ipset: ["ipset", "iptables-restore", "ip6tables-restore"].into_iter().all(there) && ipset_said.is_empty(),
        clock: seconds.map(|s| Time(s.saturating_mul(1_000_000_000))),
        clock_offset_s: seconds.map(|s| s.saturating_sub(clock::now().0.div_euclid(1_000_000_000))),
        manager: facts.peers.first().map(IpAddr::to_string),
        addresses: facts.addresses.iter().map(IpAddr::to_string).collect(),
        gateways: facts.gateways.iter().map(IpAddr::to_string).collect(),
        connect_ms: u64::try_from(connect.as_millis()).unwrap_or(u64::MAX),
        problems: Vec::new(),
    };
    report.problems = problems(platform, &report, tables.first().copied(), ipset_said.first().copied());
    report
}

fn problems(platform: Platform, report: &Report, nft_said: Option<&str>, ipset_said: Option<&str>) -> Vec<String> {
    let mut problems = Vec::new();
    if platform == Platform::OpenwrtFw3 {
        if !report.ipset {
            let why = ipset_said.unwrap_or("a program is missing");
            problems.push(format!("blocks need ipset, iptables and ip6tables ({why}); on the device: opkg update && opkg install ipset"));
        }
        if !report.fw3 {
            problems.push("there is no fw3: this is no OpenWrt with firewall3; its `platform` in devices.toml is \"openwrt-fw4\" or \"linux\"".to_owned());
        }
    } else if !report.nft && report.fw3 {
        problems.push("it has firewall3 and no nftables: write platform = \"openwrt-fw3\" for it in devices.toml".to_owned());
    } else if !report.nft {
        let help = "actions need nftables, which OpenWrt has from 22.03 on; elsewhere install it, and log in as root";
        problems.push(format!("nft cannot list tables ({}); {help}", nft_said.unwrap_or("no answer")));
    } else if !report.fw4 && platform == Platform::OpenwrtFw4 {
        problems.push("there is no table `inet fw4`: this is no OpenWrt with firewall4, or its firewall is stopped".to_owned());
    }
    match report.clock_offset_s {
        Some(offset) if offset.abs() > CLOCK_OFF_S => problems.push(format!("its clock is {offset} s off; set up NTP there")),
        None => problems.push("its clock cannot be read".to_owned()),
        Some(_) => {}
    }
    if report.manager.is_none() {
        problems.push("it does not say where the connection comes from, so the guard cannot protect the management path".to_owned());
    }
    problems
}

/// `OpenWrt 24.10.4` from `openwrt_release`, else the pretty name from `os-release`.
fn system(lines: &[&str]) -> Option<String> {
    let value = |key: &str| {
        let text = lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?.trim_matches(['\'', '"']);
        Some(text.chars().filter(|c| !c.is_control()).take(80).collect::<String>())
    };
    match (value("DISTRIB_ID"), value("DISTRIB_RELEASE")) {
        (Some(id), Some(release)) => Some(format!("{id} {release}")),
        _ => value("PRETTY_NAME"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_nft_is_told_so() {
        let report = report(Platform::default(), &GuardFacts::default(), "clock 10\nnft sh: nft: not found\n", Duration::ZERO);
        assert!(!report.nft && !report.fw4 && report.system.is_none());
        assert_eq!(report.problems.len(), 3, "{:?}", report.problems);
        assert!(report.problems[0].contains("nft: not found"), "{:?}", report.problems);
    }

    #[test]
    fn a_router_with_firewall3_is_known_and_told_what_it_lacks() {
        let bare = "clock 10\nnft sh: nft: not found\nhas /sbin/fw3\nhas /usr/sbin/iptables-restore\nhas /usr/sbin/ip6tables-restore\n";
        let first = |platform, printed: &str| report(platform, &GuardFacts::default(), printed, Duration::ZERO).problems.remove(0);
        assert!(first(Platform::OpenwrtFw4, bare).contains("platform = \"openwrt-fw3\""));
        assert!(first(Platform::OpenwrtFw3, bare).contains("opkg install ipset"));
        let whole = format!("{bare}has /usr/sbin/ipset\n");
        assert!(first(Platform::OpenwrtFw3, &whole).starts_with("its clock"), "nothing of the firewall");
        let said = first(Platform::OpenwrtFw3, &format!("{whole}ipset Kernel error received: Operation not permitted\n"));
        assert!(said.contains("Operation not permitted"), "{said}");
    }
}
