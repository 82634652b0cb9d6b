//! Reads back a blocked address from what `nft -j` prints (libnftables-json(5)).
//!
//! Three listings: the tables (so that "no such table" is told from any other error), table `inet opmas`, the flowtables.

use std::net::IpAddr;

use serde_json::Value;

use super::check::{CommandResult, Readback, ReadbackState, error_line};
use crate::model::Span;

/// `nft -j list tables`, `… list table inet opmas`, `… list flowtables`.
pub(super) const LISTINGS: usize = 3;
/// The chains' priority: before fw4's filter chains, so that its accept of established connections comes too late.
const PRIORITY: i64 = -10;
/// How much earlier than asked the device may end the effect: time passes between applying and reading back.
const EARLY: Span = Span::secs(30);

/// The table of our own.
const TABLE: &str = "opmas";
/// The chains, which are named as their hooks are, and the sides on which each must drop.
const CHAINS: [(&str, &[&str]); 2] = [("input", &["saddr"]), ("forward", &["saddr", "daddr"])];

/// Judges whether `address` is blocked for about `lifetime` from now.
pub(super) fn block(address: IpAddr, lifetime: Option<Span>, results: &[CommandResult]) -> Readback {
    match listings(results) {
        Ok(Listings { table: None, .. }) => Readback::new(ReadbackState::Absent, format!("{address} is not blocked: table inet {TABLE} is not there")),
        Ok(Listings { table: Some(table), flowtables }) => judge(address, lifetime, &table, &flowtables),
        Err(why) => Readback::new(ReadbackState::Unknown, why),
    }
}

struct Listings {
    /// The objects of our table; `None` when there is no such table.
    table: Option<Vec<Value>>,
    flowtables: Vec<Value>,
}

fn listings(results: &[CommandResult]) -> Result<Listings, String> {
    let [tables, table, flowtables] = results else {
        return Err(format!("{} listings were read back instead of {LISTINGS}", results.len()));
    };
    let ours = |object: &Value| object.get("table").is_some_and(|t| text(t, "family") == Some("inet") && text(t, "name") == Some(TABLE));
    let there = objects(tables, "nft -j list tables")?.iter().any(ours);
    let table = if there { Some(objects(table, "nft -j list table inet opmas")?) } else { None };
    Ok(Listings { table, flowtables: objects(flowtables, "nft -j list flowtables")? })
}

/// The objects of one listing: the items of `nftables`.
fn objects(result: &CommandResult, what: &str) -> Result<Vec<Value>, String> {
    match result.status {
        Some(0) => {}
        Some(status) => return Err(format!("`{what}` ended with {status} on the device and said: {}", error_line(result))),
        None => return Err(format!("`{what}` did not end on the device")),
    }
    let document: Value = serde_json::from_slice(&result.stdout).map_err(|_| format!("`{what}` printed something that is not JSON"))?;
    match document {
        Value::Object(mut map) => match map.remove("nftables") {
            Some(Value::Array(items)) => Ok(items),
            _ => Err(format!("`{what}` printed JSON without a list `nftables`")),
        },
        _ => Err(format!("`{what}` printed JSON that is no object")),
    }
}

fn judge(address: IpAddr, lifetime: Option<Span>, table: &[Value], flowtables: &[Value]) -> Readback {
    let set = if address.is_ipv4() { "hosts4" } else { "hosts6" };
    let Some(expires_in) = element(address, set, table) else {
        return Readback::new(ReadbackState::Absent, format!("{address} is not blocked: it is not in set {set}"));
    };
    let mut wrong = chain_faults(set, table);
    if let (Some(left), Some(asked)) = (expires_in, lifetime)
        && left.0.saturating_add(EARLY.0) < asked.0
    {
        wrong.push("the device will end it earlier than asked".to_owned());
    }
    if dormant(table) {
        wrong.push(format!("table inet {TABLE} is dormant"));
    }
    if flowtables.iter().any(|object| object.get("flowtable").is_some()) {
        wrong.push("flow offloading is on, and packets of offloaded connections pass no forward chain".to_owned());
    }
    let (state, detail) = if wrong.is_empty() {
        (ReadbackState::Enforced, format!("{address} is in set {set}, and the chains input and forward drop it"))
    } else {
        (ReadbackState::Partial, format!("{address} is in set {set}, but {}", wrong.join("; ")))
    };
    Readback { state, detail, expires_in }
}

/// `Some(how long still)` when the address is in the set; the inner `None` when it stays for good.
#[expect(clippy::option_option, reason = "absent, without end, and with an end are three answers")]
fn element(address: IpAddr, set: &str, table: &[Value]) -> Option<Option<Span>> {
    let set = table.iter().filter_map(|object| object.get("set")).find(|s| text(s, "name") == Some(set) && is_ours(s))?;
    let elements = set.get("elem")?.as_array()?;
    elements.iter().find_map(|item| {
        let timed = item.get("elem");
        let written = timed.map_or(item, |e| e.get("val").unwrap_or(&Value::Null)).as_str()?;
        let same = written.parse::<IpAddr>().is_ok_and(|ip| ip == address);
        same.then(|| timed.and_then(|e| e.get("expires")).and_then(Value::as_i64).map(Span::secs))
    })
}

fn dormant(table: &[Value]) -> bool {
    let flagged = |flags: &Value| flags.as_str() == Some("dormant") || flags.as_array().is_some_and(|list| list.iter().any(|f| f.as_str() == Some("dormant")));
    table.iter().filter_map(|object| object.get("table")).any(|t| t.get("flags").is_some_and(flagged))
}

/// What is missing or in the way in the two chains.
fn chain_faults(set: &str, table: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, sides) in CHAINS {
        let chain = table.iter().filter_map(|object| object.get("chain")).find(|c| text(c, "name") == Some(name) && is_ours(c));
        match chain {
            None => faults.push(format!("chain {name} is missing")),
            Some(chain) if !hooked(chain, name) => faults.push(format!("chain {name} is not a filter chain at hook {name}, priority {PRIORITY}")),
            Some(_) => faults.extend(rule_faults(name, sides, set, table)),
        }
    }
    faults
}

fn hooked(chain: &Value, hook: &str) -> bool {
    text(chain, "type") == Some("filter") && text(chain, "hook") == Some(hook) && chain.get("prio").and_then(Value::as_i64) == Some(PRIORITY)
}

fn rule_faults(chain: &str, sides: &[&str], set: &str, table: &[Value]) -> Vec<String> {
    let rules = || table.iter().filter_map(|object| object.get("rule")).filter(|r| text(r, "chain") == Some(chain) && is_ours(r));
    let mut faults: Vec<String> = Vec::new();
    let protocol = if set == "hosts4" { "ip" } else { "ip6" };
    for side in sides {
        if !rules().any(|rule| dropped(rule).is_some_and(|d| d == (protocol, *side, set))) {
            faults.push(format!("chain {chain} does not drop `{protocol} {side} @{set}`"));
        }
    }
    // A rule that is not ours could accept a packet before our rules see it.
    if rules().any(|rule| dropped(rule).is_none()) {
        faults.push(format!("chain {chain} has a rule that opmas did not put there"));
    }
    faults
}

/// The protocol, side and set of a rule that does nothing but count and drop packets of a set; `None` for any other rule.
fn dropped(rule: &Value) -> Option<(&str, &str, &str)> {
    let (first, rest) = rule.get("expr")?.as_array()?.split_first()?;
    let only_drops = rest.last()?.get("drop").is_some() && rest.iter().all(|e| e.get("drop").is_some() || e.get("counter").is_some());
    let matched = first.get("match")?;
    let payload = matched.get("left")?.get("payload")?;
    let set = text(matched, "right")?.strip_prefix('@')?;
    (only_drops && text(matched, "op") == Some("==")).then_some((text(payload, "protocol")?, text(payload, "field")?, set))
}

fn is_ours(object: &Value) -> bool {
    text(object, "family") == Some("inet") && text(object, "table") == Some(TABLE)
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}
