//! Host, program, pid and message behind a syslog stamp (semantics X4).

use super::canon;

/// Longest host name (RFC 1123).
const MAX_HOST: usize = 255;
/// Longest tag that is taken for a program's name.
const MAX_PROGRAM: usize = 128;
/// Digits of the largest pid (2^22) and some room.
const MAX_PID_DIGITS: usize = 10;

/// Programs of OpenWrt that log without a pid, or behind a prefix; those of the extractors are known as well.
const KNOWN_PROGRAMS: &[&str] = &[
    "adblock",
    "banIP",
    "collectd",
    "crond",
    "ddns-scripts",
    "dnsmasq",
    "dnsmasq-dhcp",
    "dnsmasq-script",
    "dnsmasq-tftp",
    "dropbear",
    "firewall",
    "fstools",
    "fw4",
    "hostapd",
    "init",
    "iwinfo",
    "kernel",
    "logread",
    "luci",
    "miniupnpd",
    "mwan3",
    "mwan3-hotplug",
    "mwan3rtmon",
    "mwan3track",
    "netifd",
    "ntpd",
    "odhcp6c",
    "odhcpd",
    "openvpn",
    "pppd",
    "procd",
    "rpcd",
    "sqm",
    "sshd",
    "sysntpd",
    "syslogd",
    "ubusd",
    "udhcpc",
    "uhttpd",
    "unbound",
    "urngd",
    "usteer",
    "wpa_supplicant",
    "xl2tpd",
];

/// What stands before the message.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tagged<'a> {
    /// OpenWrt's `log_prefix`.
    pub(super) prefix: Option<&'a str>,
    pub(super) program: Option<&'a str>,
    pub(super) pid: Option<u64>,
    pub(super) message: &'a str,
}

#[derive(Clone, Copy)]
struct Tag<'a> {
    name: &'a str,
    pid: Option<u64>,
    rest: &'a str,
}

/// The host name, if the text begins with one: a word that is no tag and has only a host name's characters.
/// `None` stands for a missing name, also when the line has `-` for it.
pub(super) fn host(text: &str) -> (Option<&str>, &str) {
    let Some((word, rest)) = text.split_once(' ') else { return (None, text) };
    if word == "-" {
        return (None, rest);
    }
    let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let is_host = !word.is_empty() && word.len() <= MAX_HOST && word.bytes().all(named);
    if is_host || canon::ip(word).is_some() { (Some(word), rest) } else { (None, text) }
}

/// Program, pid and message: the program is the first tag; a first tag without pid is a `log_prefix` when a second tag
/// with a pid, or naming a known program, follows it. The kernel's tag is no prefix: its messages quote other tags.
pub(super) fn tagged<'a>(text: &'a str, is_known: &dyn Fn(&str) -> bool) -> Tagged<'a> {
    let text = without_empty_tags(text);
    let Some(first) = tag(text) else { return Tagged { message: text, ..Tagged::default() } };
    let known = |name: &str| is_known(name) || KNOWN_PROGRAMS.contains(&name);
    let plain = Tagged { prefix: None, program: Some(first.name), pid: first.pid, message: first.rest };
    if first.pid.is_some() || first.name == "kernel" {
        return plain;
    }
    match tag(without_empty_tags(first.rest)) {
        Some(second) if second.pid.is_some() || known(second.name) => {
            Tagged { prefix: Some(first.name), program: Some(second.name), pid: second.pid, message: second.rest }
        }
        _ => plain,
    }
}

/// For a line without PRI and stamp, which may be any text: only a tag with a pid or of a known program counts.
pub(super) fn tagged_if_sure<'a>(text: &'a str, is_known: &dyn Fn(&str) -> bool) -> Tagged<'a> {
    match tag(text) {
        Some(first) if first.pid.is_some() || is_known(first.name) || KNOWN_PROGRAMS.contains(&first.name) => tagged(text, is_known),
        _ => Tagged { message: text, ..Tagged::default() },
    }
}

/// `logger -t ''` and luci log with an empty tag: `: luci: failed login …`.
fn without_empty_tags(text: &str) -> &str {
    text.strip_prefix(": ").unwrap_or(text)
}

/// `name: `, `name[pid]: ` at the start of the text.
fn tag(text: &str) -> Option<Tag<'_>> {
    let end = text.bytes().take(MAX_PROGRAM + 1).position(|b| matches!(b, b':' | b'[' | b' ') || b.is_ascii_control())?;
    let (name, rest) = text.split_at_checked(end)?;
    if name.is_empty() {
        return None;
    }
    let Some(bracketed) = rest.strip_prefix('[') else {
        let rest = rest.strip_prefix(':')?;
        let rest = if rest.is_empty() { rest } else { rest.strip_prefix(' ')? };
        return Some(Tag { name, pid: None, rest });
    };
    let (inner, rest) = bracketed.split_once(']')?;
    let rest = rest.strip_prefix(':')?;
    let digits = inner.len() <= MAX_PID_DIGITS && inner.bytes().all(|b| b.is_ascii_digit());
    let pid = if digits { inner.parse().ok() } else { None };
    Some(Tag { name, pid, rest: rest.strip_prefix(' ').unwrap_or(rest) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Option<&str>, Option<&str>, Option<u64>, &str) {
        let tagged = tagged(text, &|_| false);
        (tagged.prefix, tagged.program, tagged.pid, tagged.message)
    }

    #[test]
    fn x4_the_program_is_the_first_tag() {
        assert_eq!(parts("dropbear[1]: a: b"), (None, Some("dropbear"), Some(1), "a: b"));
        assert_eq!(parts("uhttpd[1825]: luci: accepted"), (None, Some("uhttpd"), Some(1825), "luci: accepted"));
        assert_eq!(parts("netifd: wan (2702): udhcpc: x"), (None, Some("netifd"), None, "wan (2702): udhcpc: x"));
        assert_eq!(parts("x: line"), (None, Some("x"), None, "line"));
        assert_eq!(parts("kernel: dropbear[7]: segfault"), (None, Some("kernel"), None, "dropbear[7]: segfault"));
    }

    #[test]
    fn x4_a_first_tag_before_a_tag_with_pid_or_a_known_program_is_a_prefix() {
        assert_eq!(parts("router: x[7]: y"), (Some("router"), Some("x"), Some(7), "y"));
        assert_eq!(parts("router: hostapd: y"), (Some("router"), Some("hostapd"), None, "y"));
        assert_eq!(parts("router: x: y"), (None, Some("router"), None, "x: y"));
    }

    #[test]
    fn x4_no_tag_is_no_program() {
        assert_eq!(parts("Use the BFG!"), (None, None, None, "Use the BFG!"));
        assert_eq!(parts(": luci: failed"), (None, Some("luci"), None, "failed"));
        assert_eq!(parts("http://x"), (None, None, None, "http://x"));
    }

    #[test]
    fn x4_a_host_is_no_tag() {
        assert_eq!(host("ap1 router: x"), (Some("ap1"), "router: x"));
        assert_eq!(host("dropbear[1]: x"), (None, "dropbear[1]: x"));
        assert_eq!(host("kernel: x"), (None, "kernel: x"));
        assert_eq!(host("2001:db8::1 kernel: x"), (Some("2001:db8::1"), "kernel: x"));
        assert_eq!(host("[2001:db8::1] kernel: x"), (Some("[2001:db8::1]"), "kernel: x"));
        assert_eq!(host("fe80::1%br-lan kernel: x"), (Some("fe80::1%br-lan"), "kernel: x"));
        assert_eq!(host("- kernel: x"), (None, "kernel: x"));
    }
}
