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
use crate::action::{Batch, Catalogue, CommandResult, GuardFacts, HELPER, LIST_SETS, LIST_TABLES, sets, tables};
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

/// What blocks need where there is firewall3.
const FW3_PROGRAMS: [&str; 3] = ["ipset", "iptables-restore", "ip6tables-restore"];
/// What a check wants to know beyond what the guard does. The release files have other names on other systems, so none needs to be there.
const LOOKS: [&[&str]; 4] = [
    &["date", "-u", "+%s"],
    &["sh", "-c", "for p in nft fw4 fw3 iptables-restore ip6tables-restore ipset; do command -v $p; done; true"],
    &["sh", "-c", "cat /etc/openwrt_release /etc/os-release 2>/dev/null; true"],
    &["sh", "-c", "{ uname -sr; busybox | head -n 1; dropbear -V; } 2>&1; true"],
];

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

/// Those that may hang stand last.
pub(super) fn check() -> Batch {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect();
    let looks = LOOKS.iter().map(|argv| argv.iter().map(|word| (*word).to_owned()).collect());
    let all = looks.chain([words(LIST_SETS), words(LIST_TABLES)]);
    Batch::fixed("check", all.map(|argv| Command { argv, stdin: None }).collect())
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

/// The report of a check, from the facts and what came of the commands of [`check`], with when they were asked for.
pub(super) fn report(platform: Platform, facts: &GuardFacts, (asked, results): (Time, &[CommandResult]), connect: Duration) -> Report {
    let text =
        |at: usize| results.get(at).filter(|one| one.status == Some(0)).map_or_else(String::new, |one| String::from_utf8_lossy(&one.stdout).into_owned());
    let (clock, programs, release, versions) = (text(0), text(1), text(2), text(3));
    let there = |program: &str| programs.lines().any(|path| path.rsplit('/').next() == Some(program));
    let none = CommandResult::default();
    let sets = sets(results.get(LOOKS.len()).unwrap_or(&none));
    let (nft, tables) = match tables(results.get(LOOKS.len() + 1).unwrap_or(&none)) {
        Ok((version, tables)) => (version, Ok(tables)),
        Err(why) => (None, Err(why)),
    };
    let seconds: Option<i64> = clock.trim().parse().ok();
    let mut report = Report {
        system: system(&release.lines().collect::<Vec<_>>()),
        versions: versions.lines().take(8).map(|line| visible(line, 80)).chain(nft).collect(),
        nft: tables.is_ok(),
        fw4: tables.as_ref().is_ok_and(|tables| tables.iter().any(|table| table == "inet fw4")),
        fw3: there("fw3"),
        ipset: FW3_PROGRAMS.into_iter().all(there) && sets.is_ok(),
        clock: seconds.map(|s| Time(s.saturating_mul(1_000_000_000))),
        clock_offset_s: seconds.map(|s| s.saturating_sub(asked.0.div_euclid(1_000_000_000))),
        manager: facts.peers.first().map(IpAddr::to_string),
        addresses: facts.addresses.iter().map(IpAddr::to_string).collect(),
        gateways: facts.gateways.iter().map(IpAddr::to_string).collect(),
        connect_ms: u64::try_from(connect.as_millis()).unwrap_or(u64::MAX),
        problems: Vec::new(),
        notes: Vec::new(),
    };
    let fw4 = there("fw4") || report.fw4;
    let missing = FW3_PROGRAMS.into_iter().find(|program| !there(program));
    report.problems.extend(match platform {
        Platform::OpenwrtFw3 if !report.fw3 && fw4 => Some("it has firewall4: write platform = \"openwrt-fw4\" for it in devices.toml".to_owned()),
        Platform::OpenwrtFw3 if !report.fw3 => {
            Some("there is no fw3: this is no OpenWrt with firewall3; its `platform` in devices.toml is \"openwrt-fw4\" or \"linux\"".to_owned())
        }
        Platform::OpenwrtFw3 => match (missing, &sets) {
            (Some(program), _) => {
                Some(format!("blocks need ipset, iptables and ip6tables, and there is no {program}; on the device: opkg update && opkg install ipset"))
            }
            (None, Err(why)) => Some(format!("blocks need ipset, and {why}")),
            (None, Ok(_)) => None,
        },
        _ if there("nft") => tables.as_ref().err().map(|why| format!("actions need nft, and {why}")),
        _ if report.fw3 => Some("it has firewall3 and no nftables: write platform = \"openwrt-fw3\" for it in devices.toml".to_owned()),
        _ if tables.is_err() => {
            Some("there is no nft: actions need nftables, which OpenWrt has from 22.03 on; elsewhere install it, and log in as root".to_owned())
        }
        _ => None,
    });
    if platform == Platform::OpenwrtFw4 && tables.is_ok() && !report.fw4 {
        report.notes.push("there is no table `inet fw4`: its firewall is stopped, or this is no OpenWrt with firewall4".to_owned());
    }
    report.notes.extend(match report.clock_offset_s {
        Some(offset) if offset.abs() > CLOCK_OFF_S => Some(format!("its clock is {offset} s off; set up NTP there")),
        None => Some("its clock cannot be read".to_owned()),
        Some(_) => None,
    });
    if report.manager.is_none() {
        report.problems.push("it does not say where the connection comes from, so the guard cannot protect the management path".to_owned());
    }
    report
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

    fn printed(text: &str) -> CommandResult {
        CommandResult { status: Some(0), stdout: text.into(), ..CommandResult::default() }
    }

    fn said(status: i32, text: &str) -> CommandResult {
        CommandResult { status: Some(status), stderr: text.into(), ..CommandResult::default() }
    }

    /// What a check says first.
    fn first(platform: Platform, programs: &str, sets: &CommandResult, tables: &CommandResult) -> String {
        let results = [printed("1700000000"), printed(programs), printed(""), printed(""), sets.clone(), tables.clone()];
        let facts = GuardFacts { peers: [IpAddr::from([192, 168, 1, 2])].into(), ..GuardFacts::default() };
        let Report { problems, notes, .. } = report(platform, &facts, (Time(1_700_000_000_000_000_000), &results), Duration::ZERO);
        problems.into_iter().chain(notes).next().unwrap_or_default()
    }

    #[test]
    fn what_keeps_actions_from_running_is_told_first_as_it_is_known() {
        use Platform::{Linux, OpenwrtFw3, OpenwrtFw4};
        let (old, new) = ("/sbin/fw3\n/usr/sbin/iptables-restore\n/usr/sbin/ip6tables-restore\n", "/usr/sbin/nft\n/sbin/fw4\n");
        let whole = format!("{old}/usr/sbin/ipset\n");
        let (none, missing) = (printed(""), said(127, "sh: not found"));
        let tables = printed(r#"{"nftables": [{"metainfo": {"version": "1.0.9"}}, {"table": {"family": "inet", "name": "fw4"}}]}"#);
        let stopped = printed(r#"{"nftables": [{"metainfo": {"version": "1.0.9"}}]}"#);
        let hung = CommandResult::without_end("did not end within 8 s, its limit, and was ended there".to_owned());
        let loud = CommandResult { cut: Some(9), ..printed("yes\nyes\ny") };
        for (platform, programs, sets, tables, words) in [
            (OpenwrtFw4, new, &missing, &tables, ""),
            (Linux, new, &missing, &stopped, ""),
            (OpenwrtFw4, new, &missing, &stopped, "its firewall is stopped"),
            (OpenwrtFw4, new, &missing, &hung, "actions need nft, and `nft -j list tables` did not end within 8 s"),
            (OpenwrtFw4, new, &missing, &none, "`nft -j list tables` printed nothing"),
            (OpenwrtFw4, new, &missing, &loud, "`nft -j list tables` printed more than 9 bytes"),
            (OpenwrtFw4, new, &missing, &printed("a\u{1b}[2J"), "printed something that is not a listing in JSON: `a\\u{1b}[2J`"),
            (OpenwrtFw4, old, &missing, &missing, "platform = \"openwrt-fw3\""),
            (OpenwrtFw4, "", &missing, &missing, "there is no nft"),
            (OpenwrtFw3, new, &missing, &tables, "it has firewall4: write platform = \"openwrt-fw4\""),
            (OpenwrtFw3, "", &missing, &missing, "there is no fw3"),
            (OpenwrtFw3, old, &missing, &missing, "there is no ipset; on the device: opkg update && opkg install ipset"),
            (OpenwrtFw3, &whole, &none, &missing, ""),
            (OpenwrtFw3, &whole, &hung, &missing, "blocks need ipset, and `ipset list -n` did not end within 8 s"),
            (OpenwrtFw3, &whole, &said(1, "Kernel error received: Operation not permitted"), &missing, "and said: Kernel error received"),
            (OpenwrtFw3, &whole, &printed(&"x".repeat(99)), &missing, "`ipset list -n` printed something that is not names of sets: `xxx"),
        ] {
            let said = first(platform, programs, sets, tables);
            assert!(said.contains(words) && said.is_empty() == words.is_empty() && said.len() < 300, "{platform:?} {programs:?}: {said}");
        }
    }
}
