//! Reads back an address or a network in an ipset, and the rules in table `mangle` that look it up, from what `ipset` and `iptables -S` print.
//!
//! Four listings: the names of the sets (so that "no such set" is told from any other error), the set, the rules, what offloaded
//! connections there are; of an action that lets in, three: the names, the set, the blocked networks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::check::{CommandResult, Readback, ReadbackState, listed, printed_else, too_few};
use super::nft::{EARLY, NftSet};
use super::params::Params;
use super::template::DAYS_24_S;
use crate::model::Span;

/// `ipset list -n`, `ipset save SET`, `iptables -t mangle -S`, offloaded connections.
pub(super) const LISTINGS: usize = 4;
/// `ipset list -n`, `ipset save SET`, `ipset save NETWORKS`.
pub(super) const LISTINGS_OF_ABSENCE: usize = 3;
/// The longest that a set is asked to keep a member; of a longer lifetime the half of it is enough, and it is asked for again.
const LONGEST: Span = Span::secs(DAYS_24_S);
/// Longest name of a set, in bytes (IPSET_MAXNAMELEN).
const MAX_SET: usize = 31;
/// What the names of our chains and sets begin with.
const OURS: &str = "opmas_";

/// Judges whether the member is there, for about its lifetime from now, and whether rules look it up.
pub(super) fn judge(check: &NftSet, params: &Params, results: &[CommandResult]) -> Readback {
    let Some(element) = network(&check.element.render(params)) else {
        return Readback::new(ReadbackState::Unknown, "the call has no address");
    };
    let set = check.set.render(params);
    let judged = if check.absent { gone(&set, element, results) } else { there(check, params, &set, element, results) };
    judged.unwrap_or_else(|why| Readback::new(ReadbackState::Unknown, why))
}

/// That the member is gone, and that no blocked network holds it.
fn gone(set: &str, element: IpNet, results: &[CommandResult]) -> Result<Readback, String> {
    let [names, saved, networks] = results else { return Err(too_few(results, LISTINGS_OF_ABSENCE)) };
    let (names, shown) = (sets(names)?, shown(element));
    if member(&names, set, saved, element)?.is_some() {
        return Ok(Readback::new(ReadbackState::Absent, format!("{shown} is still in set {set}")));
    }
    let name = if element.addr().is_ipv4() { "opmas_nets4" } else { "opmas_nets6" };
    let around = members(&names, name, networks)?.into_iter().find(|(net, _)| net.contains(&element));
    Ok(match around {
        Some((net, _)) => Readback::new(ReadbackState::Partial, format!("{shown} is not in set {set}, but the network {net} is blocked")),
        None => Readback::new(ReadbackState::Enforced, format!("{shown} is not in set {set}")),
    })
}

fn there(check: &NftSet, params: &Params, set: &str, element: IpNet, results: &[CommandResult]) -> Result<Readback, String> {
    let [names, saved, rules, offloaded] = results else { return Err(too_few(results, LISTINGS)) };
    let (names, shown) = (sets(names)?, shown(element));
    let (rules, offloaded) = (printed(rules, "iptables -t mangle -S")?, printed(offloaded, "iptables -S FORWARD")?);
    if !rules.starts_with("-P ") {
        return Err(format!("`iptables -t mangle -S` {}", printed_else(rules.as_bytes(), "a list of rules")));
    }
    let Some(expires_in) = member(&names, set, saved, element)? else {
        return Ok(Readback::new(ReadbackState::Absent, format!("{shown} is not in set {set}")));
    };
    let mut wrong: Vec<String> = check.rules(params).iter().flat_map(|(chain, wanted)| faults(chain, wanted, &rules)).collect();
    if let (Some(left), Some(asked)) = (expires_in, check.lifetime(params))
        && left.0.saturating_add(EARLY.0) < if asked > LONGEST { LONGEST.0 / 2 } else { asked.0 }
    {
        wrong.push("the device will end it earlier than asked".to_owned());
    }
    if !offloaded.trim().is_empty() {
        wrong.push("flow offloading is on, and packets of offloaded connections pass no rule".to_owned());
    }
    let (state, detail) = match wrong.as_slice() {
        [] => (ReadbackState::Enforced, format!("{shown} is in set {set}, and the rules look it up")),
        wrong => (ReadbackState::Partial, format!("{shown} is in set {set}, but {}", wrong.join("; "))),
    };
    Ok(Readback { state, detail, expires_in })
}

fn printed(result: &CommandResult, what: &str) -> Result<String, String> {
    listed(result, what).map(|listed| String::from_utf8_lossy(listed).into_owned())
}

/// The command whose answer [`sets`] reads.
pub const LIST_SETS: &str = "ipset list -n";

/// The names of all sets, a line each.
///
/// # Errors
/// It did not list them: what it did instead.
pub fn sets(result: &CommandResult) -> Result<String, String> {
    let names = printed(result, LIST_SETS)?;
    let is_name = |line: &str| line.len() <= MAX_SET && line.bytes().all(|byte| byte.is_ascii_graphic());
    if names.lines().all(is_name) { Ok(names) } else { Err(format!("`{LIST_SETS}` {}", printed_else(names.as_bytes(), "names of sets"))) }
}

/// An address or a network; a host is a network of one.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn shown(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// What `ipset save` says of a set's members: `add opmas_hosts4 203.0.113.9 timeout 3599`; without a time one stays for good.
fn members(names: &str, set: &str, saved: &CommandResult) -> Result<Vec<(IpNet, Option<Span>)>, String> {
    // Saving a set that is not there fails.
    if !names.lines().any(|name| name == set) {
        return Ok(Vec::new());
    }
    let begin = format!("add {set} ");
    let read = |line: &str| {
        let mut words = line.strip_prefix(begin.as_str())?.split_whitespace();
        let net = network(words.next()?)?;
        let seconds = words.skip_while(|word| *word != "timeout").nth(1).and_then(|word| word.parse().ok());
        Some((net, seconds.filter(|seconds| *seconds > 0).map(Span::secs)))
    };
    let what = format!("ipset save {set}");
    let saved = printed(saved, &what)?;
    if !saved.starts_with(&format!("create {set} ")) {
        return Err(format!("`{what}` {}", printed_else(saved.as_bytes(), "that set")));
    }
    Ok(saved.lines().filter_map(read).collect())
}

/// `Some(how long still)` when it is in the set.
#[expect(clippy::option_option, reason = "absent, without end, and with an end are three answers")]
fn member(names: &str, set: &str, saved: &CommandResult, element: IpNet) -> Result<Option<Option<Span>>, String> {
    Ok(members(names, set, saved)?.into_iter().find(|(net, _)| *net == element).map(|(_, left)| left))
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
