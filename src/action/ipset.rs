//! Reads back an address or a network in an ipset, and the rules in table `mangle` that look it up, from what `ipset` and `iptables -S` print.
//!
//! Four listings: the names of the sets (so that "no such set" is told from any other error), the set, the rules, what offloaded
//! connections there are; a fifth for an action that lets in: the blocked networks.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::check::{CommandResult, Readback, ReadbackState, error_line};
use super::nft::{EARLY, NftSet};
use super::params::Params;
use crate::model::Span;

/// `ipset list -n`, `ipset save SET`, `iptables -t mangle -S`, offloaded connections, `ipset save NETWORKS`.
pub(super) const LISTINGS: RangeInclusive<usize> = 4..=5;
/// The longest that a set is asked to keep a member; of a longer lifetime the half of it is enough, and it is asked for again.
const LONGEST: Span = Span::secs(24 * 86_400);
/// What the names of our chains and sets begin with.
const OURS: &str = "opmas_";

/// Judges whether the member is there, for about its lifetime from now, and whether rules look it up.
pub(super) fn judge(check: &NftSet, params: &Params, results: &[CommandResult]) -> Readback {
    let Some(element) = network(&check.element.render(params)) else {
        return Readback::new(ReadbackState::Unknown, "the call has no address");
    };
    let set = check.set.render(params);
    let judged = read(results).and_then(|read| {
        let there = if read.has(&set) { member(&printed(read.set, "ipset save")?, element) } else { None };
        let shown = shown(element);
        Ok(match there {
            Some(_) if check.absent => Readback::new(ReadbackState::Absent, format!("{shown} is still in set {set}")),
            None if check.absent => absent(&shown, &set, around(&read, element)?),
            None => Readback::new(ReadbackState::Absent, format!("{shown} is not in set {set}")),
            Some(expires_in) => {
                let mut wrong: Vec<String> = check.rules(params).iter().flat_map(|(chain, rules)| faults(chain, rules, &read.rules)).collect();
                if let (Some(left), Some(asked)) = (expires_in, check.lifetime(params))
                    && left.0.saturating_add(EARLY.0) < if asked > LONGEST { LONGEST.0 / 2 } else { asked.0 }
                {
                    wrong.push("the device will end it earlier than asked".to_owned());
                }
                if !read.offloaded.trim().is_empty() {
                    wrong.push("flow offloading is on, and packets of offloaded connections pass no rule".to_owned());
                }
                let (state, detail) = match wrong.as_slice() {
                    [] => (ReadbackState::Enforced, format!("{shown} is in set {set}, and the rules look it up")),
                    wrong => (ReadbackState::Partial, format!("{shown} is in set {set}, but {}", wrong.join("; "))),
                };
                Readback { state, detail, expires_in }
            }
        })
    });
    judged.unwrap_or_else(|why| Readback::new(ReadbackState::Unknown, why))
}

struct Read<'a> {
    names: String,
    set: &'a CommandResult,
    rules: String,
    offloaded: String,
    networks: Option<&'a CommandResult>,
}

impl Read<'_> {
    fn has(&self, set: &str) -> bool {
        self.names.lines().any(|name| name == set)
    }
}

fn read(results: &[CommandResult]) -> Result<Read<'_>, String> {
    let [names, set, rules, offloaded, networks @ ..] = results else {
        return Err(format!("{} listings were read back instead of {}", results.len(), LISTINGS.start()));
    };
    Ok(Read {
        names: printed(names, "ipset list -n")?,
        set,
        rules: printed(rules, "iptables -t mangle -S")?,
        offloaded: printed(offloaded, "iptables -S FORWARD")?,
        networks: networks.first(),
    })
}

fn printed(result: &CommandResult, what: &str) -> Result<String, String> {
    match result.status {
        Some(0) => Ok(String::from_utf8_lossy(&result.stdout).into_owned()),
        Some(status) => Err(format!("`{what}` ended with {status} on the device and said: {}", error_line(result))),
        None => Err(format!("`{what}` did not end on the device")),
    }
}

/// An address or a network; a host is a network of one.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn shown(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// What `ipset save` says of its members: `add opmas_hosts4 203.0.113.9 timeout 3599`; without a time one stays for good.
fn members(saved: &str) -> impl Iterator<Item = (IpNet, Option<Span>)> {
    saved.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "add").skip(2);
        let net = network(words.next()?)?;
        let seconds = words.skip_while(|word| *word != "timeout").nth(1).and_then(|word| word.parse().ok());
        Some((net, seconds.filter(|seconds| *seconds > 0).map(Span::secs)))
    })
}

/// `Some(how long still)` when it is in the set.
#[expect(clippy::option_option, reason = "absent, without end, and with an end are three answers")]
fn member(saved: &str, element: IpNet) -> Option<Option<Span>> {
    members(saved).find(|(net, _)| *net == element).map(|(_, left)| left)
}

/// The blocked network that holds it.
fn around(read: &Read<'_>, element: IpNet) -> Result<Option<IpNet>, String> {
    let name = if element.addr().is_ipv4() { "opmas_nets4" } else { "opmas_nets6" };
    match read.networks {
        Some(saved) if read.has(name) => Ok(members(&printed(saved, "ipset save")?).map(|(net, _)| net).find(|net| net.contains(&element))),
        _ => Ok(None),
    }
}

fn absent(shown: &str, set: &str, around: Option<IpNet>) -> Readback {
    match around {
        Some(net) => Readback::new(ReadbackState::Partial, format!("{shown} is not in set {set}, but the network {net} is blocked")),
        None => Readback::new(ReadbackState::Enforced, format!("{shown} is not in set {set}")),
    }
}

/// What is missing or in the way of a chain of ours, `opmas_input…` or `opmas_forward…`.
fn faults(chain: &str, wanted: &[String], rules: &str) -> Vec<String> {
    let of = |chain: &str| {
        let begin = format!("-A {chain} ");
        rules.lines().filter_map(move |line| line.strip_prefix(begin.as_str())).map(str::trim_end).collect::<Vec<_>>()
    };
    let hook = chain.strip_prefix(OURS).and_then(|rest| rest.split('_').next()).unwrap_or_default().to_ascii_uppercase();
    let jump = format!("-j {chain}");
    let there = of(chain);
    let mut faults = Vec::new();
    // A rule before ours could accept a packet.
    if !of(&hook).iter().take_while(|rule| rule.starts_with("-j opmas_")).any(|rule| **rule == jump) {
        faults.push(format!("chain {hook} of table mangle does not begin with {chain}"));
    }
    let missing = wanted.iter().filter(|rule| !there.iter().any(|there| same(rule, there)));
    faults.extend(missing.map(|rule| format!("chain {chain} does not have `{rule}`")));
    if there.iter().any(|rule| !rule.starts_with("-m set --match-set opmas_") || !rule.ends_with(" -j DROP")) {
        faults.push(format!("chain {chain} has a rule that opmas did not put there"));
    }
    faults
}

/// Word by word; `*` stands for any word (a rate, which the kernel rounds).
fn same(wanted: &str, there: &str) -> bool {
    let (wanted, there) = (wanted.split(' '), there.split(' '));
    wanted.clone().count() == there.clone().count() && wanted.zip(there).all(|(wanted, there)| wanted == "*" || wanted == there)
}
